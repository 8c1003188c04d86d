//! The web page and /json.
