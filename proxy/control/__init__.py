"""What the proxy learns from the control plane, and keeps when it is gone: certificates, bundle, discovery. Never per
request.
"""
