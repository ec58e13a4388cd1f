//! Tensors of other floating-point types as float32: exact for F16 and BF16, to the nearest (ties to even) for F64.

use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The type's name and the values; `None` for types that are no floating-point numbers of weights.
pub(super) fn to_f32(view: &TensorView<'_>) -> Option<(&'static str, Vec<f32>)> {
    let data = view.data();
    let (half, single) =
        (data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])), data.chunks_exact(4));
    Some(match view.dtype() {
        Dtype::F32 => ("F32", single.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => ("F16", half.map(from_f16).collect()),
        Dtype::BF16 => ("BF16", half.map(|bits| f32::from_bits(u32::from(bits) << 16)).collect()),
        Dtype::F64 => {
            let double = data.chunks_exact(8).map(|b| {
                let bytes = b.try_into().expect("a chunk has eight bytes");
                f64::from_le_bytes(bytes) as f32
            });
            ("F64", double.collect())
        }
        _ => return None,
    })
}

/// IEEE 754 binary16: a sign, 5 bits of exponent with bias 15, 10 of fraction.
fn from_f16(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15) << 31, bits >> 10 & 0x1f, u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal: the fraction counts units of 2^-24, which float32 holds exactly.
        0 => (fraction as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (u32::from(exponent) + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_as_ieee_754_writes_it() {
        let known: [(u16, f32); 9] = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0400, 6.103_515_6e-5),
            (0x03ff, 6.097_555e-5),
            (0x0001, 5.960_464_5e-8),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, expected) in known {
            assert_eq!(from_f16(bits), expected, "{bits:#x}");
        }
        assert!(from_f16(0x7e00).is_nan() && from_f16(0x8000).is_sign_negative());
    }

    #[test]
    fn each_type_gives_the_same_numbers() {
        let values = [1.5f32, -0.25, 3.0];
        let f64s: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bf16s: Vec<u8> = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        let f16s: Vec<u8> = [0x3e00u16, 0xb400, 0x4200].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (name, dtype, bytes) in [
            ("F64", Dtype::F64, &f64s),
            ("F32", Dtype::F32, &f32s),
            ("BF16", Dtype::BF16, &bf16s),
            ("F16", Dtype::F16, &f16s),
        ] {
            let view = TensorView::new(dtype, vec![3], bytes).unwrap();
            assert_eq!(to_f32(&view), Some((name, values.to_vec())));
        }
        assert_eq!(to_f32(&TensorView::new(Dtype::I16, vec![3], &f16s).unwrap()), None);
    }
}
