"""What scripts/man needs beside the program itself; never imported by the code of the service."""
