//! The indexer's loss against naive f64 loops.

use candle_core::{DType, Device, Tensor, Var};
use deepseek_v32::ops::layout::BatchLayout;
use deepseek_v32::training::{
    ChosenSlots, IndexTarget, IndexerBatch, IndexerLoss, indexer_loss, indexer_loss_with, indexer_recall,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::support::{difference, flat, random, scalar};

/// Greatest relative difference from the naive loops in f64 and in f32.
const F64_TOLERANCE: f64 = 1e-11;
const F32_TOLERANCE: f64 = 1e-5;

/// Everything by row of the batch and, for keys, by slot.
struct Case {
    layout: BatchLayout,
    slots: usize,
    index_heads: usize,
    index_dim: usize,
    heads: usize,
    dim: usize,
    index_q: Vec<f64>,
    index_k: Vec<f64>,
    weights: Vec<f64>,
    q: Vec<f64>,
    kv: Vec<f64>,
    row_weights: Vec<f64>,
    /// The slots that each row attends to, and those that it was given, -1 = none.
    attended: Vec<Vec<usize>>,
    chosen: Option<(usize, usize, Vec<i64>)>,
}

const SCALE: f64 = 0.37;

impl Case {
    /// `chosen`: `(from_position, k)`.
    fn new(
        lengths: &[usize],
        [index_heads, index_dim, heads, dim]: [usize; 4],
        chosen: Option<(usize, usize)>,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(lengths.iter().sum::<usize>() as u64);
        let layout = BatchLayout::uncached(lengths);
        let tokens = layout.tokens();
        let slots = layout.spans.iter().map(|span| span.block_table.len() * 64).sum::<usize>();
        let mut attended = Vec::new();
        let mut listed = Vec::new();
        for span in &layout.spans {
            for position in 0..span.tokens.len() {
                let mut seen: Vec<usize> = (0..=position).map(|p| span.slot(p)).collect();
                if let Some((from, k)) = chosen.filter(|(from, _)| position >= *from) {
                    seen.shuffle(&mut rng);
                    // Every seventh row attends to less than it might, the first of them to nothing.
                    let count = if (position - from) % 7 == 6 { (position - from) / 7 } else { k }.min(k);
                    seen.truncate(count);
                    let mut row = vec![-1; k];
                    row.iter_mut().zip(&seen).for_each(|(to, &slot)| *to = slot as i64);
                    row.shuffle(&mut rng);
                    listed.extend(row);
                }
                attended.push(seen);
            }
        }
        let row_weights = random(&mut rng, tokens, 0.0..2.0);
        Self {
            index_q: random(&mut rng, tokens * index_heads * index_dim, -1.0..1.0),
            index_k: random(&mut rng, slots * index_dim, -1.0..1.0),
            weights: random(&mut rng, tokens * index_heads, -1.0..1.0),
            q: random(&mut rng, tokens * heads * dim, -1.0..1.0),
            kv: random(&mut rng, slots * dim, -1.0..1.0),
            chosen: chosen.map(|(from, k)| (from, k, listed)),
            layout,
            slots,
            index_heads,
            index_dim,
            heads,
            dim,
            row_weights,
            attended,
        }
    }

    /// The probabilities of the attention, summed over heads and divided by their sum.
    fn target(&self, row: usize) -> Vec<f64> {
        let mut target = vec![0.0; self.attended[row].len()];
        for head in 0..self.heads {
            let q = &self.q[(row * self.heads + head) * self.dim..][..self.dim];
            let score = |&slot: &usize| SCALE * dot(q, &self.kv[slot * self.dim..][..self.dim]);
            let exps: Vec<f64> = self.attended[row].iter().map(|slot| score(slot).exp()).collect();
            let sum: f64 = exps.iter().sum();
            target.iter_mut().zip(&exps).for_each(|(t, e)| *t += e / sum);
        }
        target.iter().map(|t| t / self.heads as f64).collect()
    }

    /// Loss, divergences, and the gradients of index queries, index keys and weights of heads.
    fn naive(&self) -> (f64, Vec<f64>, [Vec<f64>; 3]) {
        let (heads, dim) = (self.index_heads, self.index_dim);
        let mut gradients = [&self.index_q, &self.index_k, &self.weights].map(|x| vec![0.0; x.len()]);
        let (mut loss, mut kls) = (0.0, Vec::new());
        for (row, slots) in self.attended.iter().enumerate() {
            let q = |j: usize| &self.index_q[(row * heads + j) * dim..][..dim];
            let k = |slot: usize| &self.index_k[slot * dim..][..dim];
            let w = |j: usize| self.weights[row * heads + j];
            let score = |slot: usize| (0..heads).map(|j| w(j) * dot(q(j), k(slot)).max(0.0)).sum::<f64>();
            let exps: Vec<f64> = slots.iter().map(|&slot| score(slot).exp()).collect();
            let sum: f64 = exps.iter().sum();
            let target = self.target(row);
            let kl: f64 = target.iter().zip(&exps).map(|(p, e)| p * (p / (e / sum)).ln()).sum();
            loss += self.row_weights[row] * kl;
            kls.push(kl);
            for ((&slot, p), e) in slots.iter().zip(&target).zip(&exps) {
                let d_score = self.row_weights[row] * (e / sum - p);
                for j in 0..heads {
                    let product = dot(q(j), k(slot));
                    if product > 0.0 {
                        gradients[2][row * heads + j] += d_score * product;
                        for d in 0..dim {
                            gradients[0][(row * heads + j) * dim + d] += d_score * w(j) * k(slot)[d];
                            gradients[1][slot * dim + d] += d_score * w(j) * q(j)[d];
                        }
                    }
                }
            }
        }
        (loss, kls, gradients)
    }

    fn tensor(&self, values: &[f64], shape: &[usize], dtype: DType) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn variables(&self, dtype: DType) -> [Var; 3] {
        let tokens = self.layout.tokens();
        [
            self.tensor(&self.index_q, &[tokens, self.index_heads, self.index_dim], dtype),
            self.tensor(&self.index_k, &[self.slots, self.index_dim], dtype),
            self.tensor(&self.weights, &[tokens, self.index_heads], dtype),
        ]
        .map(|tensor| Var::from_tensor(&tensor).unwrap())
    }

    fn run(&self, variables: &[Var; 3], dtype: DType) -> IndexerLoss {
        let tokens = self.layout.tokens();
        let q = self.tensor(&self.q, &[tokens, self.heads, self.dim], dtype);
        let kv = self.tensor(&self.kv, &[self.slots, self.dim], dtype);
        let chosen = self.chosen.as_ref().map(|(from_position, k, listed)| {
            (*from_position, Tensor::from_slice(listed, (listed.len() / k, *k), &Device::Cpu).unwrap())
        });
        let batch = IndexerBatch {
            index_q: &variables[0],
            index_k: &variables[1],
            weights: &variables[2],
            layout: &self.layout,
            chosen: chosen.as_ref().map(|(from_position, slots)| ChosenSlots { from_position: *from_position, slots }),
            target: IndexTarget::Attention { q: &q, kv: &kv, softmax_scale: SCALE },
        };
        indexer_loss(&batch, &self.row_weights).unwrap()
    }

    fn check(&self, what: &str) {
        let (loss, kl, gradients) = self.naive();
        assert!(kl.iter().all(|&kl| kl > -1e-12) && loss > 1e-2, "{what}: loss {loss}");
        for (dtype, tolerance) in [(DType::F64, F64_TOLERANCE), (DType::F32, F32_TOLERANCE)] {
            let variables = self.variables(dtype);
            let found = self.run(&variables, dtype);
            assert!(difference(&[scalar(&found.loss)], &[loss], 0.0) <= tolerance, "{what}: {dtype:?}: loss");
            assert!(difference(&found.kl, &kl, 0.0) <= tolerance, "{what}: {dtype:?}: kl");
            let grads = found.loss.backward().unwrap();
            for ((name, variable), expected) in ["q", "k", "w"].iter().zip(&variables).zip(&gradients) {
                let differ = difference(&flat(grads.get(variable).unwrap()), expected, 0.0);
                assert!(differ <= tolerance, "{what}: {dtype:?}: gradient of {name}: {differ}");
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn dense_rows() {
    Case::new(&[9, 70, 1, 33], [3, 5, 2, 6], None).check("dense");
}

#[test]
fn chosen_rows() {
    // The rows from position 4 on; some attend to nothing.
    Case::new(&[9, 70, 1, 33], [3, 5, 2, 6], Some((4, 5))).check("sparse");
    // All rows, of which the first ones have fewer keys than k.
    Case::new(&[40, 3], [2, 4, 3, 4], Some((0, 8))).check("all rows chosen");
    Case::new(&[20], [2, 4, 1, 4], Some((3, 1))).check("one key");
}

#[test]
fn more_than_a_block() {
    Case::new(&[300], [130, 2, 3, 2], None).check("dense");
    Case::new(&[300], [130, 2, 3, 2], Some((20, 250))).check("sparse");
}

/// A10: a selection of all that a row sees is the dense loss.
#[test]
fn choosing_everything_is_the_dense_loss() {
    let dense = Case::new(&[21, 70], [3, 5, 2, 6], None);
    let k = 70;
    let list = |slots: &Vec<usize>| {
        let mut row: Vec<i64> = slots.iter().map(|&slot| slot as i64).collect();
        row.resize(k, -1);
        row
    };
    let listed = dense.attended.iter().flat_map(list).collect();
    let variables = dense.variables(DType::F64);
    let expected = dense.run(&variables, DType::F64);
    let sparse = Case { chosen: Some((0, k, listed)), ..dense };
    let found = sparse.run(&variables, DType::F64);
    assert!(difference(&found.kl, &expected.kl, 0.0) <= F64_TOLERANCE);
    let (found, expected) = (found.loss.backward().unwrap(), expected.loss.backward().unwrap());
    for variable in &variables {
        let of = |grads: &candle_core::backprop::GradStore| flat(grads.get(variable).unwrap());
        assert!(difference(&of(&found), &of(&expected), 0.0) <= F64_TOLERANCE);
    }
}

/// A10: a target that the indexer gives itself has neither a loss nor a gradient.
#[test]
fn its_own_distribution_as_the_target() {
    let case = Case::new(&[12, 5], [3, 5, 2, 6], None);
    let variables = case.variables(DType::F64);
    let [index_q, index_k, weights] = &variables;
    let run = |mass: &Tensor, see: &mut dyn FnMut(&deepseek_v32::training::IndexerBlock)| {
        let target = IndexTarget::Mass(mass);
        let batch = IndexerBatch { index_q, index_k, weights, layout: &case.layout, chosen: None, target };
        indexer_loss_with(&batch, &case.row_weights, |block| {
            see(block);
            Ok(())
        })
        .unwrap()
    };
    let mut mass = vec![0.0; case.layout.tokens() * case.slots];
    // Masses need not have the sum 1.
    let ones = Tensor::ones((case.layout.tokens(), case.slots), DType::F64, &Device::Cpu).unwrap();
    run(&ones, &mut |block| {
        let (slots, scores) = (block.slots.to_vec2::<i64>().unwrap(), block.scores.to_vec2::<f64>().unwrap());
        for (i, row) in block.rows.clone().enumerate() {
            for (c, slot) in slots[0].iter().enumerate() {
                mass[row * case.slots + *slot as usize] = 3.0 * scores[i][c].exp();
            }
        }
    });
    let mass = case.tensor(&mass, &[case.layout.tokens(), case.slots], DType::F64);
    let found = run(&mass, &mut |_| ());
    assert!(scalar(&found.loss).abs() <= F64_TOLERANCE, "{}", found.loss);
    let grads = found.loss.backward().unwrap();
    for variable in &variables {
        assert!(flat(grads.get(variable).unwrap()).iter().all(|g| g.abs() <= F64_TOLERANCE));
    }
}

/// The recall of a choice of `k` against sorted lists.
#[test]
fn recall_of_the_attentions_mass() {
    let case = Case::new(&[12, 40], [3, 5, 2, 6], None);
    let [index_q, index_k, weights] = &case.variables(DType::F64);
    let tokens = case.layout.tokens();
    let q = case.tensor(&case.q, &[tokens, case.heads, case.dim], DType::F64);
    let kv = case.tensor(&case.kv, &[case.slots, case.dim], DType::F64);
    let target = IndexTarget::Attention { q: &q, kv: &kv, softmax_scale: SCALE };
    let batch = IndexerBatch { index_q, index_k, weights, layout: &case.layout, chosen: None, target };
    for k in [1, 4, 40] {
        let found = indexer_recall(&batch, k).unwrap();
        let mut below = 0;
        for (row, slots) in case.attended.iter().enumerate() {
            let score = |slot: usize| -> f64 {
                let q = |j: usize| &case.index_q[(row * case.index_heads + j) * case.index_dim..][..case.index_dim];
                let k = &case.index_k[slot * case.index_dim..][..case.index_dim];
                (0..case.index_heads).map(|j| case.weights[row * case.index_heads + j] * dot(q(j), k).max(0.0)).sum()
            };
            let mut by_score: Vec<(f64, f64)> =
                slots.iter().zip(case.target(row)).map(|(&slot, p)| (score(slot), p)).collect();
            by_score.sort_by(|a, b| b.0.total_cmp(&a.0));
            let kept: f64 = by_score.iter().take(k).map(|(_, p)| p).sum();
            by_score.sort_by(|a, b| b.1.total_cmp(&a.1));
            let most: f64 = by_score.iter().take(k).map(|(_, p)| p).sum();
            assert!((found[row] - kept / most).abs() <= 1e-12, "row {row}, k {k}");
            below += usize::from(found[row] < 0.9);
        }
        assert_eq!(below > 5, k < 40);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(&[6], [2, 3, 1, 3], Some((2, 2)));
    let variables = case.variables(DType::F64);
    let [index_q, index_k, weights] = &variables;
    let mass = Tensor::ones((6, case.slots), DType::F64, &Device::Cpu).unwrap();
    let slots = Tensor::zeros((4, 2), DType::I64, &Device::Cpu).unwrap();
    let good = IndexerBatch {
        index_q,
        index_k,
        weights,
        layout: &case.layout,
        chosen: Some(ChosenSlots { from_position: 2, slots: &slots }),
        target: IndexTarget::Mass(&mass),
    };
    let refused = |batch: IndexerBatch, row_weights: &[f64], expected: &str| {
        assert_eq!(indexer_loss(&batch, row_weights).unwrap_err().to_string(), expected);
    };
    indexer_loss(&good, &[1.0; 6]).unwrap();
    refused(good, &[1.0; 5], "row_weights: 5 of them, expected 6");
    refused(good, &[1.0, 1.0, f64::NAN, 1.0, 1.0, 1.0], "row_weights[2] is NaN, expected finite");
    refused(
        IndexerBatch { target: IndexTarget::Mass(&mass.narrow(1, 0, 5).unwrap()), ..good },
        &[1.0; 6],
        "target mass: columns: 5 of them, expected 64",
    );
    let chosen = Some(ChosenSlots { from_position: 1, slots: &slots });
    refused(IndexerBatch { chosen, ..good }, &[1.0; 6], "chosen slots: rows: 4 of them, expected 5");
    let outside = Tensor::full(64i64, (4, 2), &Device::Cpu).unwrap();
    let chosen = Some(ChosenSlots { from_position: 2, slots: &outside });
    refused(IndexerBatch { chosen, ..good }, &[1.0; 6], "chosen slots, row 0 is 64, expected -1..64");
    let q = index_q.narrow(2, 0, 2).unwrap();
    refused(IndexerBatch { index_q: &q, ..good }, &[1.0; 6], "index_k: columns: 3 of them, expected 2");
}
