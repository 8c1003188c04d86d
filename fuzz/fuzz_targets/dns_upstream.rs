#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dockless::net::dns::fuzzing::upstream(bytes));
