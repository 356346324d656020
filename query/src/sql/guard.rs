//! Bounds on a statement's text and tokens, checked before anything is parsed.
