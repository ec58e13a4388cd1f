//! What the files under `deploy/` say to the program, against what the program says of itself.
