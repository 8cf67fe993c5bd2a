"""One file a family of published weights, and how a file's family is found."""
