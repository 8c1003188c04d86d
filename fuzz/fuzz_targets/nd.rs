#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dockless::net::fuzzing::nd(bytes));
