#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dockless::engine::fuzzing::state(bytes));
