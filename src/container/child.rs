//! The child between clone3 and execve, a typed order of stages.
