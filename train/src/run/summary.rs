//! The summaries that a run prints before its first and after its last step.

use std::path::Path;

use polaron::Schedule;
use polaron::layerwise::Plan;
use polaron::schedule::ScheduleKind;
use polaron_common::thousands;
use polaron_datasets::Tokenizer;

use crate::host::progress::duration;
use crate::networks::family::Unit;
use crate::run::prompt;
use crate::run::refactoring;
use crate::run::rope;
use crate::run::validations::Validations;
use crate::settings::config::Config;
use crate::store::checkpoint::TrainerState;
use polaron_datasets::{quoted, quoted_word};

/// Threads, processes and grains in words.
fn workforce(config: &Config, threads: usize, ranks: usize) -> String {
    let train = &config.train;
    let ranks = if ranks > 1 { format!(" on each of {ranks} ranks") } else { String::new() };
    let grains = match train.grains * train.accumulation {
        0 => String::new(),
        grains => format!(", {grains} grains a batch"),
    };
    format!("{threads} threads{ranks}{grains}")
}

/// The lines before the first step of a run on so many threads of so many processes; `data` describes the data.
pub fn start(config: &Config, data: &str, plan: &Plan, [threads, ranks]: [usize; 2], out: &Path, step: u64) -> String {
    let Config { model, train, optimizer, .. } = config;
    let tokens = config.tokens_per_step();
    let many = model.unit().many;
    let remaining = train.steps.saturating_sub(step);
    let frozen = match plan.frozen() {
        0 => String::new(),
        frozen => format!(", {} of them frozen", thousands(frozen as u64)),
    };
    let mut lines = vec![
        format!(
            "model      {}: {} parameters{frozen} ({})",
            model.preset(),
            thousands(plan.parameters() as u64),
            model.sizes()
        ),
        format!("data       {data}"),
        format!(
            "optimizer  {}, learning rate {}, {}{}",
            optimizer.stack,
            optimizer.lr,
            config.schedule.main,
            own_schedules(plan)
        ),
        format!(
            "work       {} steps of {} {many}: {} {many}",
            thousands(remaining),
            match model.tokens_per_row() {
                1 => thousands(tokens),
                each => format!("{} x {each} = {}", train.batch, thousands(tokens)),
            },
            thousands(remaining.saturating_mul(tokens))
        ),
        format!("device     {}, {}", config.device.name, workforce(config, threads, ranks)),
        format!("run folder {} (plan.txt there says which optimizer updates which parameter)", out.display()),
    ];
    if let Some(average) = &train.average {
        let first = thousands(average.first(train.steps));
        lines.insert(
            3,
            format!(
                "average    from step {first} on, over {} steps; {} of it and {} of the trained weights are validated and used",
                average.horizon,
                average.mix,
                1.0 - average.mix
            ),
        );
    }
    if let Some(wrapper) = &optimizer.wrapper {
        lines.insert(3, format!("wrapper    {wrapper}"));
    }
    if let Some(weights) = weights(config) {
        lines.insert(1, format!("weights    {weights}"));
    }
    if let Some(lora) = train.lora.as_ref().filter(|lora| lora.refactor_every > 0) {
        let states = refactoring::states(plan);
        lines.insert(
            3,
            format!("adapters   re-factorised before the first step and every {} steps: {states}", lora.refactor_every),
        );
    }
    if train.lora.is_some() && train.init.is_empty() && step == 0 {
        lines.push(
            "note: the adapters are beside initial weights, which stay as they are; --init starts from trained ones"
                .into(),
        );
    }
    let own = plan.schedules().iter().map(|rule| (format!(" of {}", rule.name()), rule.schedule()));
    let all: Vec<(String, Schedule)> = std::iter::once((String::new(), config.schedule.main)).chain(own).collect();
    for (what, schedule) in &all {
        if schedule.warmup >= train.steps {
            lines.push(format!(
                "warning: the warm-up{what} takes {} steps, so all {} steps stay below the full learning rate; \
                 set schedule.warmup to change that",
                schedule.warmup, train.steps
            ));
        }
    }
    lines.extend(rope::warnings(&model.rope_layers()));
    let decays = all.iter().any(|(_, schedule)| schedule.kind != ScheduleKind::Constant);
    if let Some(wrapper) = optimizer.wrapper.as_ref().filter(|wrapper| wrapper.replaces_schedule() && decays) {
        lines.push(format!(
            "warning: the average of {} takes the place of a decay of the learning rate, but the schedule decays too; set \
             schedule.kind to constant to change that",
            wrapper.kind()
        ));
    }
    lines.join("\n")
}

/// Lines about what follows schedules of its own; empty without any.
fn own_schedules(plan: &Plan) -> String {
    let rules = plan.schedules().iter().map(|rule| format!("\n           of {}: {}", rule.name(), rule.schedule()));
    rules.chain(plan.momentum().map(|momentum| format!("\n           momentum {momentum}"))).collect()
}

/// Which trained weights a run starts from; None if it starts from a seed.
pub fn weights(config: &Config) -> Option<String> {
    let train = &config.train;
    let (from, step) = (&train.init, thousands(train.init_step));
    let how = if train.init_continues { ", continued with its optimizer states from its step" } else { "" };
    (!from.is_empty()).then(|| format!("those of step {step} of `{from}`{how}"))
}

/// The lines after the last step. `peak_memory` is in bytes.
pub fn end(config: &Config, state: &TrainerState, validations: &Validations, peak_memory: Option<u64>) -> String {
    let Unit { one, many } = config.model.unit();
    let mut lines = Vec::new();
    if let (Some((_, last)), Some((step, best))) = (validations.last, validations.best) {
        lines.push(format!("validation loss  {last:.4} nats per {one} (best {best:.4} at step {})", thousands(step)));
    }
    if let Some(bits) = validations.bits_per_byte {
        lines.push(format!("bits per byte    {bits:.4}"));
    }
    if let Some(accuracy) = validations.accuracy {
        lines.push(format!("accuracy         {:.2} % of the validation images", 100.0 * accuracy));
    }
    if let Some(load_cv) = validations.router_load_cv {
        lines.push(format!(
            "router load CV   {load_cv:.3} (0 is balanced; mean over the routers, more in metrics.jsonl)"
        ));
    }
    let seconds = state.seconds.max(1e-9);
    lines.push(format!(
        "trained          {} steps, {} {many} in {} ({} {many}/s), optimizer {:.0} % of it",
        thousands(state.step),
        thousands(state.tokens),
        duration(state.seconds),
        thousands((state.tokens as f64 / seconds) as u64),
        100.0 * state.optimizer_seconds / seconds
    ));
    if let Some(bytes) = peak_memory {
        lines.push(format!("peak memory      {} MB", thousands(bytes / 1_000_000)));
    }
    format!("{}\n", lines.join("\n"))
}

/// Suggested shell commands for a finished run. `tokenizer` is the run's, if it has one.
pub fn commands(config: &Config, tokenizer: Option<&Tokenizer>, out: &Path) -> String {
    let run = quoted(out);
    let mut lines = vec![format!("run folder       {}", out.display())];
    lines.extend(tokenizer.filter(|tokenizer| tokenizer.has_text()).map(|tokenizer| {
        let prompt = quoted_word(&prompt::suggested(&config.train.sample_prompt, tokenizer));
        format!("generate text    polaron generate {run} --prompt {prompt}")
    }));
    lines.push(format!("export weights   polaron export {run} --out model.safetensors"));
    format!("{}\n", lines.join("\n"))
}
