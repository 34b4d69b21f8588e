//! `ops::cache_write` against a loop over rows.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::cache_write::cache_write;

use crate::common_attn::{assert_error, every_backend, rng, tensor};

fn slots(slots: &[u32]) -> Tensor {
    Tensor::new(slots, &Device::Cpu).unwrap()
}

#[test]
fn writes_each_row_to_its_slot() {
    let named = [7u32, 0, 130, 64, 63];
    every_backend(|case| {
        for (cache_dtype, row_dtype) in
            [(DType::F32, DType::F32), (DType::BF16, DType::F32), (DType::F32, DType::BF16), (DType::F16, DType::F16)]
        {
            let mut rng = rng(1);
            let old = tensor(&mut rng, &[131, 5]).to_dtype(cache_dtype).unwrap();
            // Rows that lie apart in memory.
            let rows = tensor(&mut rng, &[5, 9]).to_dtype(row_dtype).unwrap().narrow(1, 2, 5).unwrap();
            let cache = old.copy().unwrap();
            cache_write(&cache, &rows, &slots(&named)).unwrap();
            let vec = |x: &Tensor| x.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
            let mut expected = vec(&old);
            for (row, &slot) in vec(&rows.to_dtype(cache_dtype).unwrap()).into_iter().zip(&named) {
                expected[slot as usize] = row;
            }
            assert_eq!(vec(&cache), expected, "{case}: {cache_dtype:?}, {row_dtype:?}");
        }
    });
}

#[test]
fn takes_no_rows() {
    every_backend(|case| {
        let cache = Tensor::ones((3, 2), DType::F32, &Device::Cpu).unwrap();
        let rows = Tensor::zeros((0, 2), DType::F32, &Device::Cpu).unwrap();
        cache_write(&cache, &rows, &slots(&[])).unwrap();
        assert_eq!(cache.to_vec2::<f32>().unwrap(), [[1.0; 2]; 3], "{case}");
    });
}

#[test]
fn refuses_what_does_not_fit() {
    let cache = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
    let rows = Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap();
    assert_error(cache_write(&cache, &rows, &slots(&[1, 4])), "slots[1] is 4, the cache has 4 slots");
    assert_eq!(cache.to_vec2::<f32>().unwrap(), [[0.0; 2]; 4], "a failed call has written");
    assert_error(cache_write(&cache, &rows, &slots(&[1])), "cache_write: slots must be [T = 2], got [1]");
    assert_error(cache_write(&cache, &rows.narrow(1, 0, 1).unwrap(), &slots(&[1, 2])), "rows must be [T, D = 2]");
    assert_error(cache_write(&cache, &rows, &slots(&[1, 2]).to_dtype(DType::I64).unwrap()), "slots must be u32");
    assert_error(cache_write(&cache.t().unwrap(), &rows.narrow(0, 0, 1).unwrap(), &slots(&[0])), "rows must be");
    let square = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    assert_error(cache_write(&square.t().unwrap(), &rows, &slots(&[0, 1])), "cache must be contiguous");
}
