//! Attention in all its forms.

use candle_core::{DType, Device, Tensor};
use deepseek_v32::ops::fp8::{Fp8Row, row_quant};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::ops::linear::LinearWeight;
use deepseek_v32::ops::{absorb_query, absorb_value, dense_mla, fp8, mha, sparse_mha, sparse_mla};
use rand::Rng;

use crate::common::{tensor, to_f64};
use crate::common_attn::{self, SLOTS, rng};
use crate::{check, gpu, views};

/// f32: online softmax over some hundred keys; bf16: one rounding of the result.
const TOLERANCES: [(DType, f64); 2] = [(DType::F32, 2e-5), (DType::BF16, 8e-3)];
/// Products in bf16 whose weights were rounded to bf16, too.
const ROUNDED_TWICE: f64 = 2e-2;
/// (heads, width of keys, width of values).
const WIDTHS: [(usize, usize, usize); 6] =
    [(1, 1, 1), (3, 40, 33), (8, 192, 128), (5, 300, 0), (16, 576, 512), (2, 700, 600)];
const BATCHES: [&[(usize, usize)]; 4] =
    [&[(0, 1)], &[(0, 70)], &[(5, 3), (0, 9), (200, 1)], &[(64, 2), (0, 0), (63, 1)]];

/// Indices into `0..rows`, a third of them none; the second row names nothing.
fn indices(tokens: usize, k: usize, rows: usize) -> Tensor {
    let mut rng = rng(11);
    let mut pick = |i: usize| match rng.random_range(0..3) {
        _ if i / k == 1 => -1,
        0 => -1i32,
        _ => rng.random_range(0..rows as i32),
    };
    Tensor::from_vec((0..tokens * k).map(&mut pick).collect(), (tokens, k), &Device::Cpu).unwrap()
}

#[test]
fn in_latent_space() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for (heads, dim, value_dim) in WIDTHS {
            let kv = tensor(2, &[SLOTS, dim], dtype);
            for (tokens, k) in [(1, 1), (3, 70), (4, 333)] {
                let chosen = indices(tokens, k, SLOTS);
                for q in views(&tensor(1, &[tokens, heads, dim], dtype)) {
                    for chosen in [chosen.clone(), chosen.to_dtype(DType::I64).unwrap()] {
                        check("sparse_mla", &device, tolerance, &[&q, &kv, &chosen], |a| {
                            let (out, lse) = sparse_mla(&a[0], &a[1], &a[2], value_dim, 0.3)?;
                            Ok(vec![out, lse])
                        });
                    }
                }
            }
            for batch in BATCHES {
                let layout = common_attn::layout(&mut rng(3), batch);
                let q = tensor(1, &[layout.tokens(), heads, dim], dtype);
                check("dense_mla", &device, tolerance, &[&q, &kv], |a| {
                    let (out, lse) = dense_mla(&a[0], &a[1], &layout, value_dim, 0.3)?;
                    Ok(vec![out, lse])
                });
            }
        }
    }
    // f32 queries over a bf16 cache.
    let (q, kv, chosen) =
        (tensor(1, &[3, 4, 64], DType::F32), tensor(2, &[SLOTS, 64], DType::BF16), indices(3, 50, SLOTS));
    check("sparse_mla f32 bf16", &device, TOLERANCES[0].1, &[&q, &kv, &chosen], |a| {
        let (out, lse) = sparse_mla(&a[0], &a[1], &a[2], 48, 0.3)?;
        Ok(vec![out, lse])
    });
    // Packed rows of an FP8 cache.
    for (dtype, tolerance) in TOLERANCES {
        for (heads, dim, value_dim) in [(3, 40, 33), (16, 576, 512)] {
            let row = Fp8Row { quantized: value_dim, plain: dim - value_dim };
            let kv = row_quant(&tensor(2, &[SLOTS, dim], DType::F32), row, false).unwrap();
            let layout = common_attn::layout(&mut rng(3), BATCHES[2]);
            let q = tensor(1, &[layout.tokens(), heads, dim], dtype);
            check(
                "mla over packed rows",
                &device,
                tolerance,
                &[&q, &kv, &indices(q.dim(0).unwrap(), 70, SLOTS)],
                |a| {
                    let (out, lse) = sparse_mla(&a[0], &a[1], &a[2], value_dim, 0.3)?;
                    let (dense_out, dense_lse) = dense_mla(&a[0], &a[1], &layout, value_dim, 0.3)?;
                    Ok(vec![out, lse, dense_out, dense_lse])
                },
            );
        }
    }
    // A slot outside the cache spoils its row alone.
    let chosen = Tensor::new(&[[0i32, 5], [SLOTS as i32, 5], [-2, 1]], &device).unwrap();
    let (q, kv) = (q.to_device(&device).unwrap(), kv.to_device(&device).unwrap());
    let (out, lse) = sparse_mla(&q, &kv, &chosen, 48, 0.3).unwrap();
    let spoilt: Vec<_> = lse.to_vec2::<f32>().unwrap().iter().map(|row| row.iter().all(|x| x.is_nan())).collect();
    assert_eq!(spoilt, [false, true, true]);
    assert!(to_f64(&out.narrow(0, 0, 1).unwrap().to_device(&Device::Cpu).unwrap()).iter().all(|x| x.is_finite()));
    // No heads, no rows, no choice.
    let (out, lse) = sparse_mla(&q, &kv, &Tensor::zeros((3, 0), DType::I32, &device).unwrap(), 48, 0.3).unwrap();
    assert!(to_f64(&out.to_device(&Device::Cpu).unwrap()).iter().all(|x| *x == 0.0));
    assert!(lse.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| *x == f32::NEG_INFINITY));
    let none = sparse_mla(&q.narrow(0, 0, 0).unwrap(), &kv, &chosen.narrow(0, 0, 0).unwrap(), 48, 0.3).unwrap();
    assert_eq!((none.0.dims(), none.1.dims()), (&[0, 4, 48][..], &[0, 4][..]));
}

/// More rows than are listed at a time.
#[test]
fn dense_over_chunks_of_rows() {
    let Some(device) = gpu() else { return };
    let layout = BatchLayout::uncached(&[1100, 40]);
    let slots = 64 * layout.spans.iter().map(|span| span.block_table.len()).sum::<usize>();
    let q = tensor(1, &[layout.tokens(), 2, 576], DType::BF16);
    check("dense_mla", &device, TOLERANCES[1].1, &[&q, &tensor(2, &[slots, 576], DType::BF16)], |a| {
        let (out, lse) = dense_mla(&a[0], &a[1], &layout, 512, 0.05)?;
        Ok(vec![out, lse])
    });
}

/// Lists that name rows, then none: whole tiles of 64 in the middle of odd rows, and all of the third row.
fn lists_with_gaps(tokens: usize, k: usize, rows: usize) -> Tensor {
    let mut rng = rng(12);
    let entry = |i: usize| match (i / k, i % k) {
        (2, _) => -1,
        (row, at) if row % 2 == 1 && (64..256).contains(&at) => -1,
        _ => rng.random_range(0..rows as i32),
    };
    Tensor::from_vec((0..tokens * k).map(entry).collect(), (tokens, k), &Device::Cpu).unwrap()
}

#[test]
fn over_latents_as_wide_as_those_of_v32() {
    let Some(device) = gpu() else { return };
    let (dim, value_dim) = (576, 512);
    let latents = tensor(2, &[SLOTS, dim], DType::F32);
    let packed = row_quant(&latents, Fp8Row { quantized: value_dim, plain: dim - value_dim }, false).unwrap();
    let tolerance = TOLERANCES[1].1;
    for kv in [latents.to_dtype(DType::BF16).unwrap(), packed] {
        // Heads of one and of two warpgroups and of several clusters; lists of one tile and of many, cut and whole.
        for (tokens, heads, k) in [(1, 1, 1), (4, 64, 65), (4, 65, 640), (1, 128, 2048), (140, 3, 130), (3, 130, 700)] {
            let chosen = if k == 1 { indices(tokens, k, SLOTS) } else { lists_with_gaps(tokens, k, SLOTS) };
            for q in views(&tensor(1, &[tokens, heads, dim], DType::BF16)) {
                for chosen in [chosen.clone(), chosen.to_dtype(DType::I64).unwrap()] {
                    check("sparse_mla", &device, tolerance, &[&q, &kv, &chosen], |a| {
                        let (out, lse) = sparse_mla(&a[0], &a[1], &a[2], value_dim, 0.1)?;
                        Ok(vec![out, lse])
                    });
                }
            }
        }
        // A slot outside the cache spoils its row alone, and the same call gives the same bits.
        let chosen: Vec<_> =
            (0..4 * 128).map(|i| [7, 5, SLOTS as i32, -2][i / 128 * usize::from(i % 128 == 100)]).collect();
        let chosen = Tensor::from_vec(chosen, (4, 128), &device).unwrap();
        let q = tensor(1, &[4, 9, dim], DType::BF16).to_device(&device).unwrap();
        let kv = kv.to_device(&device).unwrap();
        let (out, lse) = sparse_mla(&q, &kv, &chosen, value_dim, 0.1).unwrap();
        let spoilt = |tensor: &Tensor| -> Vec<bool> {
            let rows = tensor.to_dtype(DType::F32).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
            rows.iter().map(|row| row.iter().all(|x| x.is_nan())).collect()
        };
        assert_eq!((spoilt(&out), spoilt(&lse)), (vec![false, false, true, true], vec![false, false, true, true]));
        let kept = |out: &Tensor| to_f64(&out.narrow(0, 0, 2).unwrap().to_device(&Device::Cpu).unwrap());
        assert_eq!(kept(&out), kept(&sparse_mla(&q, &kv, &chosen, value_dim, 0.1).unwrap().0));
        assert!(kept(&out).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn the_dense_form_has_the_bits_of_the_sparse_one() {
    let Some(device) = gpu() else { return };
    let layout = common_attn::layout(&mut rng(3), &[(100, 5), (0, 30)]);
    let seen = common_attn::visible(&layout);
    let k = seen.iter().map(Vec::len).max().unwrap();
    let chosen = seen.iter().flat_map(|row| (0..k).map(|i| row.get(i).map_or(-1, |&slot| slot as i32))).collect();
    let chosen = Tensor::from_vec(chosen, (seen.len(), k), &device).unwrap();
    let q = tensor(1, &[seen.len(), 6, 96], DType::F32).to_device(&device).unwrap();
    let kv = tensor(2, &[SLOTS, 96], DType::F32).to_device(&device).unwrap();
    let bits = |tensor: &Tensor| {
        tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let sparse = sparse_mla(&q, &kv, &chosen, 64, 0.2).unwrap();
    let dense = dense_mla(&q, &kv, &layout, 64, 0.2).unwrap();
    assert_eq!(bits(&sparse.0), bits(&dense.0));
    assert_eq!(bits(&sparse.1), bits(&dense.1));
}

#[test]
fn with_keys_of_every_head() {
    let Some(device) = gpu() else { return };
    for (dtype, tolerance) in TOLERANCES {
        for (heads, dim, value_dim) in WIDTHS {
            for batch in BATCHES {
                let layout = common_attn::layout(&mut rng(3), batch);
                let (tokens, keys) = (layout.tokens(), layout.total_context());
                let (q, v) = (tensor(1, &[tokens, heads, dim], dtype), tensor(3, &[keys, heads, value_dim], dtype));
                for k in views(&tensor(2, &[keys, heads, dim], dtype)) {
                    check("mha", &device, tolerance, &[&q, &k, &v], |a| {
                        let (out, lse) = mha(&a[0], &a[1], &a[2], &layout, 0.3)?;
                        Ok(vec![out, lse])
                    });
                }
                let chosen = indices(tokens, 40, keys);
                check(
                    "sparse_mha",
                    &device,
                    tolerance,
                    &[&q, &tensor(2, &[keys, heads, dim], dtype), &v, &chosen],
                    |a| {
                        let (out, lse) = sparse_mha(&a[0], &a[1], &a[2], &a[3], 0.3)?;
                        Ok(vec![out, lse])
                    },
                );
            }
        }
    }
}

#[test]
fn absorbed_projections() {
    let Some(device) = gpu() else { return };
    for (heads, nope, value, latent) in [(1, 1, 1, 1), (3, 24, 20, 33), (4, 128, 128, 512)] {
        // Scaled so that sums stay about one.
        let dense = (tensor(4, &[heads * (nope + value), latent], DType::F32) * (latent as f64).powf(-0.5)).unwrap();
        let (codes, scale) = fp8::block_quant(&dense, 128, false).unwrap();
        for (dtype, tolerance) in TOLERANCES {
            let weights = [
                (vec![dense.clone()], tolerance),
                (vec![dense.to_dtype(DType::BF16).unwrap()], tolerance),
                (vec![codes.clone(), scale.clone()], if dtype == DType::BF16 { ROUNDED_TWICE } else { tolerance }),
            ];
            for (weight, tolerance) in weights {
                for tokens in [1, 9] {
                    let (q, x) = (tensor(1, &[tokens, heads, nope], dtype), tensor(2, &[tokens, heads, latent], dtype));
                    let arguments: Vec<_> = [&q, &x].into_iter().chain(&weight).collect();
                    check("absorb", &device, tolerance, &arguments, |a| {
                        let weight = LinearWeight { weight: a[2].clone(), weight_scale_inv: a.get(3).cloned() };
                        Ok(vec![absorb_query(&a[0], &weight, value)?, absorb_value(&a[1], &weight, nope)?])
                    });
                }
            }
        }
    }
}
