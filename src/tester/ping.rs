//! ICMP echo, with iputils' output.
