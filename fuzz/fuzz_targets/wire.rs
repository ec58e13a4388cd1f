//! `wire` under libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| carousel_fuzz::wire(data));
