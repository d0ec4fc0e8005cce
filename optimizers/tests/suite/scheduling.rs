//! Schedules for part of the parameters and of the momentum: who follows which factor, and what is refused.

use burn::module::Module;
use burn::tensor::Device;
use polaron::layerwise::{LayerwiseError, PlanEntry, ScheduleConfig, ScheduleRule, Stacking};
use polaron::rules::{MuonConfig, OptimizerConfig};
use polaron::schedule::{MomentumSchedule, WarmupRule};
use polaron::{Layerwise, LayerwiseOptimizer, LayerwiseRecord, Role, Schedule};

use crate::model::Model;

const STEPS: u64 = 12;

fn device() -> Device {
    Device::flex().autodiff()
}

fn builder() -> Layerwise {
    Layerwise::muon().assign("head", Role::Head).clip(None)
}

fn main() -> Schedule {
    Schedule { decay_fraction: 0.5, min_factor: 0.0, ..Schedule::wsd(0) }
}

fn own() -> Schedule {
    Schedule { warmup_rule: WarmupRule::Transformers, ..Schedule::cosine(4) }
}

fn momentum() -> MomentumSchedule {
    MomentumSchedule { start: 0.6, warmup: 4, peak: 0.95, cooldown: 5, end: 0.7, power: None }
}

/// Some steps from the same weights, with gradients that do not depend on what the optimizer does.
fn trained(mut optimizer: LayerwiseOptimizer, factor: impl Fn(u64) -> f64) -> Vec<Vec<u8>> {
    let start = Model::new(&device());
    let mut model = start.clone();
    for step in 0..STEPS {
        optimizer.set_step(step, STEPS).unwrap();
        model = optimizer.step(factor(step), model, start.gradients(step as i64));
    }
    model.bytes()
}

#[test]
fn every_parameter_follows_its_own_schedule_and_all_others_the_given_factor() {
    let build = |builder: Layerwise| builder.build(&Model::new(&device())).unwrap();
    let plain = || build(builder());
    let by_main = trained(plain(), |step| main().factor(step, STEPS));
    let by_own = trained(plain(), |step| own().factor(step, STEPS));
    let adamw = |entry: &PlanEntry| entry.optimizer.kind() == Some("adamw");
    let embedding = |entry: &PlanEntry| entry.role == Some(Role::Embedding);
    let first = |entry: &PlanEntry| entry.path.starts_with("hidden.0");
    type Own<'a> = &'a dyn Fn(&PlanEntry) -> bool;
    let cases: [(ScheduleRule, Own<'_>); 3] = [
        (ScheduleRule::optimizer("adamw", own()).unwrap(), &adamw),
        (ScheduleRule::roles([Role::Embedding], own()), &embedding),
        (ScheduleRule::path("hidden.0", own()).unwrap(), &first),
    ];
    for (rule, follows) in cases {
        for stacking in [Stacking::Never, Stacking::Always] {
            let optimizer = build(builder().schedule(rule.clone())).with_stacking(stacking);
            let entries = optimizer.plan().entries().to_vec();
            let found = trained(optimizer, |step| main().factor(step, STEPS));
            assert!(entries.iter().any(follows) && !entries.iter().all(follows), "{}", rule.name());
            for (number, entry) in entries.iter().enumerate() {
                let expected = if follows(entry) { &by_own } else { &by_main };
                assert_eq!(found[number], expected[number], "{} under the schedule for {}", entry.path, rule.name());
                assert_eq!(entry.schedule.is_some(), follows(entry));
            }
        }
    }
}

#[test]
fn the_last_schedule_that_matches_wins() {
    let all = ScheduleRule::optimizer("adamw", own()).unwrap();
    let head = ScheduleRule::roles([Role::Head], Schedule::constant(0));
    let optimizer = builder().schedule(all).schedule(head).build(&Model::new(&device())).unwrap();
    let schedule = |path: &str| {
        let entries = optimizer.plan().entries();
        entries.iter().find(|entry| entry.path == path).expect(path).schedule
    };
    assert_eq!(schedule("head.weight"), Some(Schedule::constant(0)));
    assert_eq!(schedule("embed.weight"), Some(own()));
    assert_eq!(schedule("hidden.1.weight"), None);
    let plan = optimizer.plan().to_string();
    assert!(plan.contains("schedule") && plan.contains("constant after 0") && plan.contains("main"), "{plan}");
    let plain = builder().build(&Model::new(&device())).unwrap().plan().to_string();
    assert!(!plain.contains("schedule"), "{plain}");
}

#[track_caller]
fn refused(builder: Layerwise, words: &[&str]) {
    let error = builder.build(&Model::new(&device())).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_schedule_for_nothing_is_refused_and_says_what_there_is() {
    let kind = |kind: &str| ScheduleRule::optimizer(kind, own()).unwrap();
    refused(
        builder().schedule(kind("sgd")),
        &["the schedule for optimizer \"sgd\" matches no parameter", "adamw, muon"],
    );
    let up = ScheduleRule::roles([Role::Up], own());
    refused(builder().schedule(up), &["the schedule for role \"up\"", "embedding"]);
    let path = ScheduleRule::path("hiden.*", own()).unwrap();
    refused(builder().schedule(path), &["the schedule for path \"hiden.*\"", "did you mean `hidden`?"]);
    let head = ScheduleRule::roles([Role::Head], own());
    refused(builder().schedule(head.clone()).schedule(kind("adamw")), &["role \"head\" has no effect"]);
    refused(builder().freeze("head").schedule(head), &["role \"head\" has no effect"]);
    let error = ScheduleRule::optimizer("adanw", own()).unwrap_err().to_string();
    assert!(error.contains("did you mean `adamw`?"), "{error}");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let with = |schedule| builder().schedule(ScheduleRule::roles([Role::Head], schedule));
    refused(with(Schedule { min_factor: 1.5, ..own() }), &["min_factor of the schedule for role \"head\"", "1.5"]);
    refused(with(Schedule { decay_fraction: f64::NAN, ..own() }), &["decay_fraction", "from 0 to 1"]);
    refused(with(Schedule { power: Some(0.0), ..Schedule::power(0) }), &["power", "above 0"]);
    refused(with(Schedule { power: Some(2.0), ..own() }), &["power", "only the kinds power and inverse_power"]);
    for (key, momentum) in [
        ("start", MomentumSchedule { start: 0.0, ..momentum() }),
        ("peak", MomentumSchedule { peak: 1.0, ..momentum() }),
        ("end", MomentumSchedule { end: f64::NAN, ..momentum() }),
    ] {
        refused(builder().momentum_schedule(momentum), &[&format!("schedule.momentum.{key}"), "above 0 and below 1"]);
    }
    for (momentum, words) in [
        (MomentumSchedule { power: Some(0.0), ..theory() }, "above 0 and finite"),
        (MomentumSchedule { start: 0.5, ..theory() }, "leave start, warmup"),
    ] {
        refused(builder().momentum_schedule(momentum), &["schedule.momentum.power", words]);
    }
}

#[test]
fn a_step_that_does_not_know_its_number_is_refused() {
    let model = Model::new(&device());
    let build = || builder().schedule(ScheduleRule::roles([Role::Head], own())).build(&model).unwrap();
    let mut optimizer = build();
    let refusal = optimizer.try_step(1.0, model.clone(), model.gradients(0)).unwrap_err();
    assert_eq!(refusal, LayerwiseError::StepUnknown);
    optimizer.set_step(0, STEPS).unwrap();
    optimizer.try_step(1.0, model.clone(), model.gradients(0)).unwrap();
    let again = optimizer.try_step(1.0, model.clone(), model.gradients(0)).unwrap_err();
    assert_eq!(again, LayerwiseError::StepUnknown, "the number of one step is not that of the next");
    assert!(optimizer.set_step(0, 0).is_err());
    let plain = builder().schedule(ScheduleRule::roles([Role::Head], own()));
    let refusal = plain.build_module_optimizer(&model, |_| 1.0).map(drop).unwrap_err();
    assert_eq!(refusal, LayerwiseError::CannotSchedule);
}

/// A muon of this momentum.
fn with_momentum(factor: f64) -> Layerwise {
    let keys = format!("matrix = {{ momentum = {factor:?} }}");
    Layerwise::from_toml(&keys).unwrap().assign("head", Role::Head).clip(None)
}

/// That of the theory of MuonEq.
fn theory() -> MomentumSchedule {
    MomentumSchedule { power: Some(0.5), ..MomentumSchedule::default() }
}

#[test]
fn every_step_has_the_momentum_of_its_schedule() {
    for (schedule, words) in
        [(momentum(), "momentum of 2 tensors from 0.6 to 0.95 in 4 steps"), (theory(), "1 - t^-0.5 in the t-th step")]
    {
        let start = Model::new(&device());
        let (mut scheduled, mut expected) = (start.clone(), start.clone());
        let mut optimizer = builder().momentum_schedule(schedule).build(&start).unwrap();
        let plan = optimizer.plan().to_string();
        assert!(plan.contains(words), "{plan}");
        let mut record: Option<LayerwiseRecord> = None;
        for step in 0..STEPS {
            optimizer.set_step(step, STEPS).unwrap();
            scheduled = optimizer.step(1.0, scheduled, start.gradients(step as i64));
            // A rule whose own momentum is 0 keeps no average.
            let factor = schedule.factor(step, STEPS).max(1e-300);
            let mut constant = with_momentum(factor).build(&start).unwrap();
            if let Some(record) = record {
                constant.load_record(record, &device()).unwrap();
            }
            expected = constant.step(1.0, expected, start.gradients(step as i64));
            record = Some(constant.to_record());
        }
        assert_eq!(scheduled.bytes(), expected.bytes(), "{schedule}");
        let steady = trained(builder().build(&start).unwrap(), |_| 1.0);
        assert_ne!(scheduled.bytes(), steady, "{schedule}");
    }
}

#[test]
fn a_momentum_schedule_for_no_momentum_is_refused() {
    refused(
        Layerwise::adamw().momentum_schedule(momentum()),
        &["no matrix of the blocks", "leave the momentum schedule out"],
    );
    refused(with_momentum(0.0).momentum_schedule(momentum()), &["no matrix of the blocks"]);
    let debiased = Layerwise::from_toml("matrix = { momentum_form = 'ema_debiased' }").unwrap();
    let debiased = debiased.assign("head", Role::Head).momentum_schedule(momentum());
    refused(debiased, &["ema_debiased", "hidden.0.weight", "heavy_ball"]);
    let own_rule = polaron::layerwise::Rule::roles([Role::Hidden], MuonConfig::new().with_momentum(0.0));
    refused(builder().rule(own_rule).momentum_schedule(momentum()), &["no matrix of the blocks"]);
}

#[test]
fn every_kind_with_a_momentum_follows_its_schedule() {
    let mut followed = Vec::new();
    for kind in OptimizerConfig::KINDS {
        let stack = || Layerwise::stack(kind).unwrap().assign("head", Role::Head).clip(None);
        let start = Model::new(&device());
        let Ok(optimizer) = stack().momentum_schedule(momentum()).build(&start) else { continue };
        let scheduled = trained(optimizer, |_| 1.0);
        let steady = trained(stack().build(&start).unwrap(), |_| 1.0);
        assert_ne!(scheduled[1], steady[1], "{kind}");
        assert_eq!(scheduled[0], steady[0], "{kind}: the embedding has the momentum of its own rule");
        followed.push(*kind);
    }
    let expected = ["muon", "muon_eq", "normuon", "adamuon", "kaon", "row_norm", "scion"];
    assert!(expected.iter().all(|kind| followed.contains(kind)), "{followed:?}");
}

#[test]
fn resuming_with_schedules_of_its_own_equals_going_on_byte_for_byte() {
    let scheduled =
        || builder().schedule(ScheduleRule::optimizer("adamw", own()).unwrap()).momentum_schedule(momentum());
    let mut model = Model::new(&device());
    let mut straight = scheduled().build(&model).unwrap();
    let step_of = |optimizer: &mut LayerwiseOptimizer, model: Model, step: u64| {
        optimizer.set_step(step, STEPS).unwrap();
        let grads = model.gradients(step as i64);
        optimizer.step(main().factor(step, STEPS), model, grads)
    };
    for step in 0..STEPS / 2 {
        model = step_of(&mut straight, model, step);
    }
    let bytes = straight.to_record().to_safetensors().unwrap();
    let reloaded = Model::new(&device()).load_record(model.clone().into_record());
    let mut resumed = scheduled().build(&reloaded).unwrap();
    resumed.load_record(LayerwiseRecord::from_safetensors(&bytes).unwrap(), &device()).unwrap();
    let (mut a, mut b) = (model, reloaded);
    for step in STEPS / 2..STEPS {
        a = step_of(&mut straight, a, step);
        b = step_of(&mut resumed, b, step);
    }
    assert_eq!(a.bytes(), b.bytes());
    assert_eq!(straight.to_record().to_safetensors().unwrap(), resumed.to_record().to_safetensors().unwrap());
}

const MAIN: &str =
    "kind = 'power'\nwarmup = 7\nwarmup_rule = 'llama'\nmin_factor = 0.25\ndecay_fraction = 0.5\npower = 2.0\n";

#[test]
fn keys_that_a_rule_leaves_out_are_those_of_the_main_schedule() {
    let text = format!(
        "{MAIN}[[rule]]\nrole = ['head', 'router']\nwarmup = 3\n[[rule]]\nmatch = 'a.*'\nkind = 'cosine'\n[momentum]\npeak = 0.9\n"
    );
    let config = ScheduleConfig::from_toml(&text).unwrap();
    let rules = config.rules().unwrap();
    assert_eq!(rules[0].name(), "head,router");
    assert_eq!(rules[0].schedule(), Schedule { warmup: 3, ..config.main });
    let cosine = Schedule { min_factor: 0.25, decay_fraction: 0.5, ..Schedule::cosine(7) };
    assert_eq!(rules[1].schedule(), cosine, "a cosine has no exponent to inherit");
    assert_eq!(config.momentum, Some(MomentumSchedule { peak: 0.9, ..MomentumSchedule::default() }));
    let written = toml::to_string(&config).unwrap();
    assert_eq!(ScheduleConfig::from_toml(&written).unwrap(), config, "{written}");
    let plain = toml::to_string(&ScheduleConfig::from(Schedule::cosine(7))).unwrap();
    assert_eq!(
        plain, "kind = \"cosine\"\nwarmup = 7\nwarmup_rule = \"llama\"\nmin_factor = 0.1\ndecay_fraction = 0.2\n",
        "what is absent is not written"
    );
}

#[test]
fn slips_in_schedules_are_explained() {
    for (more, words) in [
        ("[[rule]]\noptimizer = 'adamw'\nkind = 'cosin'\n", "did you mean `cosine`?"),
        ("[[rule]]\nkind = 'adamw'\nmatch = 'a'\n", "write optimizer = \"adamw\""),
        ("[[rule]]\noptimizer = 'adanw'\n", "did you mean `adamw`?"),
        ("[[rule]]\nrole = 'heda'\n", "did you mean `head`?"),
        ("[[rule]]\nrole = [3]\n", "name or a list of names"),
        ("[[rule]]\nrole = []\n", "name or a list of names"),
        ("[[rule]]\nkind = 'cosine'\n", "schedule rule 1: needs one of role"),
        ("[[rule]]\nrole = 'head'\nmatch = 'a'\n", "schedule rule 1: needs one of role"),
        ("[[rule]]\nrole = 'head'\nwarmpu = 3\n", "did you mean `warmup`?"),
        ("[[rule]]\nrole = 'head'\nwarmup = -3\n", "schedule rule 1"),
        ("[[rule]]\nrole = 'head'\nmin_factor = 2.0\n", "from 0 to 1"),
        ("[momentum]\nstat = 0.5\n", "stat"),
        ("[momentum]\nstart = 1.0\n", "schedule.momentum.start"),
        ("[momentum]\nwarmup = 0.5\n", "schedule.momentum"),
        ("rul = []\n", "did you mean `rule`?"),
    ] {
        let read = ScheduleConfig::from_toml(&format!("{MAIN}{more}"));
        let error = read.and_then(|config| config.rules()).expect_err(more).to_string();
        assert!(error.contains(words), "{more}: {error}");
    }
    let error = ScheduleConfig::from_toml(&MAIN.replace("power'", "cosine'")).unwrap().rules().unwrap_err().to_string();
    assert!(error.contains("only the kinds power and inverse_power have an exponent"), "{error}");
}
