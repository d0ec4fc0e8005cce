use super::*;
use crate::compare::differences;
use crate::settings::config::Config;

fn resolve(text: &str) -> Result<Plan, Error> {
    let file = Some(("plan.toml".into(), toml::from_str(text).unwrap()));
    Plan::resolve(&Request { file, ..Request::default() })
}

fn refusal(text: &str) -> String {
    let error = resolve(text).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{text}");
    error.to_string()
}

#[test]
fn by_default_four_optimizers_are_compared() {
    let plan = Plan::resolve(&Request::default()).unwrap();
    let names: Vec<&str> = plan.contenders.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, DEFAULT_OPTIMIZERS);
    assert_eq!(plan.contenders[0].lrs, [3.33e-4, 1e-3, 3e-3]);
    assert_eq!(plan.contenders[1].lrs, [6.67e-3, 0.02, 0.06]);
    assert_eq!((plan.seeds(), plan.tune_seeds()), (1..4, 10_001..10_002));
}

#[test]
fn a_resolved_plan_resolves_to_itself() {
    let text = "optimizers = ['adamw', { name = 'hot', stack = 'muon', lr = 0.05, sweep = { 'optimizer.adamw.lr' = [1e-3, 2e-3] } }]\n\
                [compare]\nseeds = 5\njobs = 1\n[sweep]\n'optimizer.weight_decay' = [0.0, 0.1]\n\
                [train]\nbatch = 4\n[optimizer]\nclip = 0.5";
    let plan = resolve(text).unwrap();
    let written = toml::to_string(&plan.to_table().unwrap()).unwrap();
    assert_eq!(resolve(&written).unwrap(), plan, "{written}");
    assert!(differences(&plan.to_table().unwrap(), &resolve(&written).unwrap().to_table().unwrap()).is_empty());
}

#[test]
fn a_resolved_search_resolves_to_itself_and_ranges_of_an_optimizer_take_precedence() {
    let text = "optimizers = ['adamw', { name = 'hot', stack = 'muon', search = { 'optimizer.lr' = [0.01, 0.1], \
                'optimizer.matrix.momentum' = { low = 0.8, high = 0.99, scale = 'below_one' } } }]\n\
                [compare]\nhalvings = 1\n[search.optimizer]\nweight_decay = [0.01, 1.0]";
    let plan = resolve(text).unwrap();
    let written = toml::to_string(&plan.to_table().unwrap()).unwrap();
    assert_eq!(resolve(&written).unwrap(), plan, "{written}");
    let keys = |index: usize| plan.contenders[index].search.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>();
    assert_eq!(keys(0), ["optimizer.lr", "optimizer.weight_decay"]);
    assert_eq!(keys(1), ["optimizer.weight_decay", "optimizer.lr", "optimizer.matrix.momentum"]);
    assert_eq!((plan.settings.trials, plan.candidates(0).len(), plan.candidates(1).len()), (16, 16, 16));
    assert!(plan.candidates(1).iter().all(|candidate| (0.01..=0.1).contains(&candidate.lr)));
}

#[test]
fn every_stack_can_be_searched_around_its_defaults() {
    for stack in polaron::LayerwiseConfig::STACKS {
        let plan = resolve(&format!(
            "optimizers = ['{stack}', {{ name = 'again', stack = '{stack}' }}]\n[compare]\ntrials = 4"
        ))
        .unwrap();
        let candidates = plan.candidates(0);
        assert_eq!((candidates.len(), candidates.clone()), (4, plan.candidates(1)), "{stack}");
        assert!(candidates.iter().all(|candidate| candidate.lr > 0.0), "{stack}");
    }
}

#[test]
fn candidates_are_all_combinations() {
    let text = "optimizers = ['adamw', 'muon']\n[compare]\nlrs = [0.1, 0.01]\n[sweep.optimizer]\nweight_decay = [0.0, 0.1, 0.2]";
    let plan = resolve(text).unwrap();
    let candidates = plan.candidates(1);
    assert_eq!(candidates.len(), 6);
    assert_eq!((candidates[0].lr, candidates[5].lr), (0.01, 0.1));
    let config = plan.config(1, &candidates[5], Purpose::Verdict, 7).unwrap();
    assert_eq!((config.optimizer.lr, config.optimizer.weight_decay, config.train.seed), (0.1, 0.2, 7));
    assert_eq!((config.train.steps, config.train.data_seed), (400, 8));
}

#[test]
fn tuning_moves_a_rate_that_is_a_ratio_and_a_ratio_can_be_swept() {
    let text = "optimizers = ['muon', { name = 'tied', stack = 'muon', adamw = { lr_ratio = 0.5 } }]\n\
                [sweep]\n'optimizer.adamw.lr_ratio' = [0.25, 1.0]";
    let plan = resolve(text).unwrap();
    for contender in 0..2 {
        for candidate in plan.candidates(contender) {
            let config = plan.config(contender, &candidate, Purpose::Tuning, 1).unwrap();
            let ratio = candidate.swept[0].1.as_float().unwrap();
            assert_eq!(config.optimizer.adamw.rate(config.optimizer.lr), ratio * candidate.lr);
        }
    }
    let written = toml::to_string(&plan.to_table().unwrap()).unwrap();
    assert_eq!(resolve(&written).unwrap(), plan, "{written}");
    let own =
        resolve("optimizers = ['muon', 'muon_eq']\n[[schedule.rule]]\noptimizer = 'adamw'\nkind = 'wsd'").unwrap();
    let config = own.config(0, &own.candidates(0)[0], Purpose::Verdict, 1).unwrap();
    assert_eq!(config.schedule.rules().unwrap()[0].name(), "adamw");
}

#[test]
fn tuning_and_verdict_runs_differ_in_length_seed_and_validation_only() {
    let plan = resolve("[compare]\nsteps = 400\ntune_steps = 100").unwrap();
    let candidate = &plan.candidates(0)[0];
    let [tune, verdict] = [Purpose::Tuning, Purpose::Verdict].map(|p| plan.config(0, candidate, p, 3).unwrap());
    assert_eq!((tune.train.steps, tune.schedule.main.warmup), (100, 10));
    assert_eq!((verdict.train.steps, verdict.schedule.main.warmup), (400, 40));
    assert_eq!((tune.optimizer, tune.model, tune.data), (verdict.optimizer, verdict.model, verdict.data));
}

#[test]
fn all_optimizers_of_a_seed_share_weights_batches_and_everything_else() {
    let plan = Plan::resolve(&Request::default()).unwrap();
    let configs: Vec<Config> = (0..plan.contenders.len())
        .map(|index| plan.config(index, &plan.candidates(index)[0], Purpose::Verdict, 2).unwrap())
        .collect();
    for config in &configs {
        let shared = Config { optimizer: configs[0].optimizer.clone(), ..config.clone() };
        assert_eq!(shared, configs[0]);
    }
}

#[test]
fn mistakes_are_reported_with_what_to_do() {
    let cases = [
        ("optimizers = ['adamw', 'moun']", "did you mean `muon`?"),
        ("optimizers = ['adamw', 'adamw']", "adamw"),
        ("optimizers = ['adamw']", "at least two"),
        ("optimizers = []", "at least two"),
        ("[compare]\nsedes = 3", "did you mean `compare.seeds`?"),
        ("[comprae]\nseeds = 3", "did you mean `compare`?"),
        ("[compare]\nseeds = 0", "`compare.seeds` is 0"),
        ("[compare]\nlrs = [0.1, -0.1]", "-0.1"),
        ("[compare]\nlrs = [0.1, 0.1]", "0.1"),
        ("[compare]\ntargets = [-1.0]", "compare.targets"),
        ("[compare]\nfirst_tune_seed = 2", "seeds"),
        ("[compare]\nlr_factor = 1", "compare.lr_factor"),
        ("[train]\nsteps = 3", "compare.steps"),
        ("[optimizer]\nlr = 3", "compare.lrs"),
        ("[sweep]\n'train.batch' = [1, 2]", "train.batch"),
        ("[sweep]\n'optimizer.weight_decay' = []", "sweep.optimizer.weight_decay"),
        ("[sweep]\n'optimizer.weight_decai' = [0.1]", "did you mean `optimizer.weight_decay`?"),
        ("optimizers = ['muon', { name = 'b', stack = 'muon', matrix = { momentun = 1 } }]", "momentum"),
        ("optimizers = ['muon', { name = 'a/b', stack = 'muon' }]", "a/b"),
        ("optimizers = ['muon', { name = 'b', stack = 'muon', lrs = [0.1] }]", "same number"),
        ("optimizers = ['muon', { name = 'b', stack = 'muon', lrs = [] }]", "`lrs` of b"),
        ("optimizers = ['muon', { lr = 1 }]", "name"),
        ("optimizers = ['muon', 3]", "names and tables"),
        ("[search]\n'train.batch' = [1, 2]", "train.batch"),
        (
            "[search]\n'optimizer.weight_decay' = [0.1, 0.01]",
            "`search.optimizer.weight_decay` needs both ends above 0, the smaller one first",
        ),
        ("[search]\n'optimizer.weight_decai' = [0.01, 0.1]", "did you mean `optimizer.weight_decay`?"),
        ("[search]\n'optimizer.matrix.momentum' = [0.8, 0.9]", "momentum"),
        ("[compare]\ntrials = 8\nlrs = [0.01, 0.1]", "use one of them"),
        ("[compare]\ntrials = 8\n[sweep]\n'optimizer.weight_decay' = [0.1]", "use one of them"),
        ("[compare]\ntrials = 8\nhalvings = 4", "cannot be halved so many times"),
        ("[compare]\nhalvings = 1", "cannot be halved so many times"),
        ("[compare]\ntrials = 1001", "must not exceed 1000"),
        ("[compare]\ntrials = -1", "compare.trials"),
    ];
    for (text, fragment) in cases {
        let said = refusal(text);
        assert!(said.contains(fragment), "{text}: {said}");
    }
}

#[test]
fn differences_name_the_optimizer_and_the_key() {
    let a = resolve("optimizers = ['adamw', 'muon']").unwrap().to_table().unwrap();
    let b = resolve(
        "optimizers = ['adamw', { name = 'muon', weight_decay = 0.5 }]\n[compare]\njobs = 7\n[device]\nthreads = 1",
    )
    .unwrap();
    let said = differences(&a, &b.to_table().unwrap());
    assert!(
        said.iter().any(|line| line.contains("`optimizers.muon.weight_decay` is 0.1 there and 0.5 now")),
        "{said:?}"
    );
    assert!(!said.iter().any(|line| line.contains("jobs")), "{said:?}");
}

#[test]
fn the_plans_of_the_reproductions_can_be_made_and_tune_alike() {
    for name in ["reproductions.toml", "reproductions-moe.toml"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches").join(name);
        let plan = resolve(&std::fs::read_to_string(path).unwrap()).unwrap();
        let trials: Vec<usize> = (0..plan.contenders.len()).map(|index| plan.candidates(index).len()).collect();
        assert!(trials.iter().all(|count| *count == trials[0] && *count > 1), "{name}: {trials:?}");
    }
}

#[test]
fn grids_contain_their_centre() {
    assert_eq!(grid(0.02, 4, 2.0), [0.01, 0.02, 0.04, 0.08]);
    assert_eq!(grid(1.0, 1, 3.0), [1.0]);
}
