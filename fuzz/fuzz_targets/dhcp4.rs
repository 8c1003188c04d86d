#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dockless::net::dhcp::fuzzing::dhcp4(bytes));
