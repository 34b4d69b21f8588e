//! `indices_i64` keeps every index.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::{Backend, indices_i64, with_backend};

use crate::common_attn::assert_error;

#[test]
fn indices_keep_their_values() {
    let narrow = Tensor::new(&[[1i32, -1], [i32::MIN, i32::MAX]], &Device::Cpu).unwrap();
    for backend in [Backend::Cpu, Backend::Reference] {
        let wide = with_backend(backend, || indices_i64(&narrow.t().unwrap())).unwrap();
        assert_eq!(wide.to_vec2::<i64>().unwrap(), [[1, i64::from(i32::MIN)], [-1, i64::from(i32::MAX)]]);
        assert_eq!(indices_i64(&wide).unwrap().dtype(), DType::I64);
    }
    assert_error(indices_i64(&Tensor::new(&[1u32], &Device::Cpu).unwrap()), "indices must be i32 or i64");
}
