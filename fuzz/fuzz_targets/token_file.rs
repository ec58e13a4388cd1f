//! `token_file` under libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| carousel_fuzz::token_file(data));
