"""Tests that need no network beyond loopback, no cluster and no root."""
