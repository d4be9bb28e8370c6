"""What a build leaves: a library, a static one, or one for TVM's machine; and how each is run."""
