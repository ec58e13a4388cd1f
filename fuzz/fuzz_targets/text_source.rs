//! `text_source` under libFuzzer.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| carousel_fuzz::text_source(data));
