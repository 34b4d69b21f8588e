//! The curves of a run.

use std::path::Path;

use anyhow::{Context, Result};
use deepseek_v32::error::one_line_path;
use deepseek_v32::evaluation::{Panel, Series, svg};
use deepseek_v32::rl::GrpoReport;

type Value = fn(&GrpoReport) -> Option<f64>;

/// Writes the curves of the steps as SVG.
pub fn draw(path: &Path, reports: &[GrpoReport]) -> Result<()> {
    let panels: [(&str, &str, &[(&str, Value)]); 3] = [
        (
            "episodes",
            "mean",
            &[
                ("reward", |report| Some(report.reward)),
                ("solved", |report| Some(report.solved)),
                ("cut off", |report| Some(report.truncated)),
            ],
        ),
        (
            "policy",
            "nats",
            &[
                ("entropy", |report| report.metrics.mean_entropy),
                ("divergence from the reference", |report| Some(report.metrics.mean_kl)),
                ("mismatch with the sampler (k3)", |report| Some(report.metrics.mismatch_k3)),
            ],
        ),
        ("gradient norm before clipping", "norm", &[("gradient norm", |report| Some(report.gradient_norm))]),
    ];
    let panel = |(title, y_label, lines): (&str, &str, &[(&str, Value)])| {
        let series = lines.iter().enumerate().map(|(colour, (name, value))| Series {
            name: (*name).to_string(),
            points: reports.iter().filter_map(|report| Some((report.step as f64, value(report)?))).collect(),
            dashed: false,
            colour,
        });
        Panel {
            title: title.to_string(),
            x_label: "step".to_string(),
            y_label: y_label.to_string(),
            series: series.filter(|series| !series.points.is_empty()).collect(),
        }
    };
    let panels: Vec<Panel> = panels.into_iter().map(panel).filter(|panel| !panel.series.is_empty()).collect();
    if panels.is_empty() {
        return Ok(());
    }
    std::fs::write(path, svg(&panels)?).with_context(|| one_line_path(path))
}

/// The values that TensorBoard gets.
pub fn scalars(report: &GrpoReport) -> Vec<(&'static str, f64)> {
    let metrics = &report.metrics;
    let mut values = vec![
        ("episodes/reward", report.reward),
        ("episodes/solved", report.solved),
        ("episodes/cut_off", report.truncated),
        ("episodes/equal_groups", report.equal_groups as f64),
        ("length/right", metrics.mean_length_positive),
        ("length/wrong", metrics.mean_length_negative),
        ("loss/surrogate", metrics.pg_loss),
        ("loss/divergence", metrics.kl_loss),
        ("policy/divergence", metrics.mean_kl),
        ("policy/on_policy_ratio", report.on_policy_ratio),
        ("policy/mismatch_k3", metrics.mismatch_k3),
        ("policy/clipped_low", metrics.clip_frac_low),
        ("policy/clipped_high", metrics.clip_frac_high),
        ("policy/masked_sequences", metrics.opsm_seq_frac),
        ("gradient_norm", report.gradient_norm),
        ("learning_rate", report.learning_rate),
        ("tokens_per_second", report.tokens as f64 / report.seconds.max(1e-9)),
    ];
    values.extend(metrics.mean_entropy.map(|entropy| ("policy/entropy", entropy)));
    values.extend(metrics.mean_kept.map(|kept| ("policy/kept", kept)));
    values
}
