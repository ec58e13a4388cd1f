//! A random orthogonal matrix, the same bits everywhere: plain f64 sums in a fixed order. Knows no layer.

/// Partial sums of a dot product.
const PARTS: usize = 8;

/// A (size, size) matrix, row-major, uniform among the orthogonal ones: Q of the QR factorization, with a positive diagonal of R, of a
/// matrix of normal numbers (Mezzadri, "How to generate random matrices from the classical compact groups", 2007, section 4). Its
/// columns are written as our rows. `normals(quad)` gives the numbers 4 quad to 4 quad + 3.
///
/// By modified Gram-Schmidt: 2 size³ operations; off by about the precision of f64 times the matrix' condition, far below f32's.
pub(crate) fn orthogonal(size: usize, normals: impl Fn(u64) -> [f64; 4]) -> Vec<f64> {
    let quads = (size as u64 * size as u64).div_ceil(4);
    let mut rows: Vec<f64> = (0..quads).flat_map(normals).take(size * size).collect();
    for row in 0..size {
        let (done, rest) = rows.split_at_mut(row * size);
        let row = &mut rest[..size];
        for before in done.chunks_exact(size) {
            let share = dot(before, row);
            row.iter_mut().zip(before).for_each(|(x, b)| *x -= share * b);
        }
        let length = libm::sqrt(dot(row, row));
        row.iter_mut().for_each(|x| *x /= length);
    }
    rows
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut parts = [0.0; PARTS];
    let (a, a_rest) = a.as_chunks::<PARTS>();
    let (b, b_rest) = b.as_chunks::<PARTS>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..PARTS {
            parts[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    parts.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox4x32;

    #[test]
    fn rows_are_orthonormal_to_the_precision_of_f32_also_when_many() {
        let size = 203;
        let unit = |word: u32| f64::from(word) / 2_147_483_648.0 - 1.0;
        let rows = orthogonal(size, |quad| philox4x32([quad as u32, 0, 0, 0], [1, 2]).map(unit));
        for (i, a) in rows.chunks_exact(size).enumerate() {
            for (j, b) in rows.chunks_exact(size).enumerate() {
                let expected = f64::from(u8::from(i == j));
                assert!((dot(a, b) - expected).abs() < 1e-10, "rows {i} and {j}: {}", dot(a, b));
            }
        }
    }

    #[test]
    fn a_single_number_becomes_its_sign() {
        assert_eq!(orthogonal(1, |_| [-0.3, 1.0, 1.0, 1.0]), [-1.0]);
    }
}
