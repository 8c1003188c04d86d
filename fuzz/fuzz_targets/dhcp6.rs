#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dockless::net::dhcp6::fuzzing::dhcp6(bytes));
