"""More than one process for one proxy: who starts them, what passes between them. Imported only where there are
several."""
