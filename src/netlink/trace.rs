//! Every message as a line, JSON or pcap.
