//! The builder: from a stack and rules to the optimizer of a module.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::{Module, ParamGroup};
use burn::optim::ModuleOptimizer;
use burn::tensor::TensorData;
use polaron_common::splitmix64;

use super::check::Planned;
use super::decide::{Decision, decide};
use super::groups::Group;
use super::module_optimizer::{Factor, Frozen, ScheduledLr, Uncovered};
use super::norms::check_norms;
use super::optimizer::LayerwiseOptimizer;
use super::project::Directions;
use super::scheduling::check_momentum;
use super::states::OfParameter;
use super::{
    AnyOptimizer, LayerwiseConfig, LayerwiseError, ParameterInfo, Plan, PlannedOptimizer, Role, RoleHint, Roles, Rule,
    ScheduleConfig, ScheduleRule,
};
use crate::schedule::MomentumSchedule;
use crate::wrappers::{Wrapper, WrapperConfig};

/// Builder of a layerwise optimizer: a stack, changes to it, and a check that every parameter is covered once.
///
/// ```
/// use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, tensor::Device};
/// use polaron::{Layerwise, Role};
///
/// #[derive(Module, Debug)]
/// struct Mlp { hidden: Linear, output: Linear }
///
/// let device = Device::flex();
/// let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Ones);
/// let model = Mlp { hidden: linear(8, 16).init(&device), output: linear(16, 4).init(&device) };
/// let optimizer = Layerwise::muon().lr(0.02).assign("output", Role::Head).build(&model)?;
/// println!("{}", optimizer.plan());
/// # Ok::<(), polaron::layerwise::LayerwiseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Layerwise {
    /// Where the first rules come from.
    base: Option<Box<LayerwiseConfig>>,
    lr: f64,
    rules: Vec<Rule>,
    hints: Vec<RoleHint>,
    assignments: Vec<RoleHint>,
    /// Patterns of frozen parameters.
    frozen: Vec<String>,
    /// The only roles that are trained; all if it is empty.
    trained: Vec<Role>,
    clip: Option<f64>,
    qk_clip: Option<f64>,
    wrapper: Option<WrapperConfig>,
    adamw_factors: Vec<(Role, f64)>,
    width: Option<f64>,
    schedules: Vec<ScheduleRule>,
    momentum: Option<MomentumSchedule>,
    directions: Directions,
}

impl Layerwise {
    /// No rules: you have to add one for every parameter. No clipping.
    pub fn new() -> Self {
        Self {
            base: None,
            lr: 1e-3,
            rules: vec![],
            hints: vec![],
            assignments: vec![],
            frozen: vec![],
            trained: vec![],
            clip: None,
            qk_clip: None,
            wrapper: None,
            adamw_factors: vec![],
            width: None,
            schedules: vec![],
            momentum: None,
            directions: Directions::default(),
        }
    }

    /// Muon for hidden matrices (lr 0.02), AdamW (lr 1e-3) for the rest; clips the global norm at 1.
    pub fn muon() -> Self {
        Self::of_stack("muon")
    }

    /// AdamW (lr 1e-3, decay 0.1 on matrices) for everything; clips the global norm at 1.
    pub fn adamw() -> Self {
        Self::of_stack("adamw")
    }

    /// Momentum SGD (lr 0.03) for everything; clips the global norm at 1.
    pub fn sgd() -> Self {
        Self::of_stack("sgd")
    }

    /// MuonEq for hidden matrices (lr 0.01), AdamW (lr 1e-3) for the rest; clips the global norm at 1.
    pub fn muon_eq() -> Self {
        Self::of_stack("muon_eq")
    }

    /// Freon for hidden matrices (lr 0.02), AdamW (lr 1e-3) for the rest; clips the global norm at 1.
    pub fn freon() -> Self {
        Self::of_stack("freon")
    }

    /// Kaon for hidden matrices (lr 0.03), AdamW (lr 1e-3) for the rest; clips the global norm at 1.
    pub fn kaon() -> Self {
        Self::of_stack("kaon")
    }

    /// Every role by a rule that has its symmetry (arXiv 2605.18106); see
    /// [`LayerwiseConfig::STACKS`]. The model must state its attention heads, gate, up, down, head and router,
    /// by [`Roles`] or by assignments.
    pub fn symmetric() -> Self {
        Self::of_stack("symmetric")
    }

    /// Scion's norm balls for every matrix, AdamW for gains and biases; clips the global norm at 1.
    pub fn scion() -> Self {
        Self::of_stack("scion")
    }

    /// A ready-made stack by its name.
    ///
    /// # Errors
    /// If there is no stack of that name.
    pub fn stack(name: &str) -> Result<Self, LayerwiseError> {
        Ok(Self::with_base(LayerwiseConfig::stack(name)?))
    }

    fn of_stack(name: &str) -> Self {
        match LayerwiseConfig::stack(name) {
            Ok(config) => Self::with_base(config),
            Err(_) => unreachable!("the names of the built-in stacks are known"),
        }
    }

    fn with_base(config: LayerwiseConfig) -> Self {
        let LayerwiseConfig { lr, clip, qk_clip, .. } = config;
        let wrapper = config.wrapper.clone();
        Self { lr, clip, qk_clip, wrapper, base: Some(Box::new(config)), ..Self::new() }
    }

    /// From a configuration.
    ///
    /// # Errors
    /// If the stack, a rule or a value is not valid.
    pub fn from_config(config: &LayerwiseConfig) -> Result<Self, LayerwiseError> {
        config.rules()?;
        Ok(Self::with_base(config.clone()))
    }

    /// From the TOML of an `[optimizer]` table, see [`LayerwiseConfig`].
    ///
    /// # Errors
    /// The errors of [`LayerwiseConfig::from_toml`], or if a rule is not valid.
    pub fn from_toml(text: &str) -> Result<Self, LayerwiseError> {
        Self::from_config(&LayerwiseConfig::from_toml(text)?)
    }

    /// Learning rate of the main rule, and of your own rules that do not set one.
    #[must_use]
    pub fn lr(self, lr: f64) -> Self {
        self.change(|config| config.lr = lr).set(|builder| builder.lr = lr)
    }

    /// Weight decay of the stack's main rule.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        self.change(|config| config.weight_decay = weight_decay)
    }

    /// Learning rate of the AdamW part of a matrix stack.
    #[must_use]
    pub fn adamw_lr(self, lr: f64) -> Self {
        self.change(|config| (config.adamw.lr, config.adamw.lr_ratio) = (lr, None))
    }

    /// Learning rate of the AdamW part of a matrix stack as a multiple of that of the main rule, in place of
    /// [`adamw_lr`](Self::adamw_lr).
    #[must_use]
    pub fn adamw_lr_ratio(self, ratio: f64) -> Self {
        self.change(|config| config.adamw.lr_ratio = Some(ratio))
    }

    /// Clips the norm over all gradients, before any rule; `None` and 0 turn clipping off.
    #[must_use]
    pub fn clip(self, threshold: impl Into<Option<f64>>) -> Self {
        let threshold = threshold.into();
        self.set(|builder| builder.clip = threshold)
    }

    /// Threshold of [`LayerwiseOptimizer::clip_heads`]; off (`None` or 0) by default, for the reason given at
    /// [`clip_heads`](super::clip_heads).
    #[must_use]
    pub fn qk_clip(self, threshold: impl Into<Option<f64>>) -> Self {
        let threshold = threshold.into();
        self.set(|builder| builder.qk_clip = threshold)
    }

    /// Puts a wrapper around the steps. Call
    /// [`LayerwiseOptimizer::before_forward`] before every forward pass of training, and evaluate
    /// [`LayerwiseOptimizer::evaluation_weights`].
    ///
    /// ```
    /// # use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// # use burn::optim::GradientsParams;
    /// use polaron::Layerwise;
    /// use polaron::wrappers::ScheduleFreeConfig;
    /// # let device = Device::flex().autodiff();
    /// # let linear = LinearConfig::new(8, 4).with_initializer(Initializer::Ones);
    /// # let mut model = linear.init(&device);
    /// # let inputs = Tensor::<2>::ones([2, 8], &device);
    ///
    /// let mut optimizer = Layerwise::muon().wrapper(ScheduleFreeConfig::new()).build(&model)?;
    /// for _ in 0..3 {
    ///     model = optimizer.before_forward(1.0, model)?;
    ///     let loss = model.forward(inputs.clone()).square().mean();
    ///     let grads = GradientsParams::from_grads(loss.backward(), &model);
    ///     model = optimizer.step(1.0, model, grads);
    /// }
    /// let evaluated = optimizer.evaluation_weights(model.clone())?;
    /// # let _ = evaluated;
    /// # Ok::<(), polaron::LayerwiseError>(())
    /// ```
    #[must_use]
    pub fn wrapper(self, wrapper: impl Into<WrapperConfig>) -> Self {
        let wrapper = wrapper.into();
        self.set(|builder| builder.wrapper = Some(wrapper))
    }

    /// Assigns a role to the parameters that a glob or `/regex/` matches; overrides inferred roles and hints.
    #[must_use]
    pub fn assign(self, pattern: impl Into<String>, role: Role) -> Self {
        self.assign_hint(RoleHint::new(pattern, role))
    }

    /// The same as [`Layerwise::assign`], with heads or another layout.
    #[must_use]
    pub fn assign_hint(self, hint: RoleHint) -> Self {
        self.set(|builder| builder.assignments.push(hint))
    }

    /// Adds the hints of a model about its parameters.
    #[must_use]
    pub fn hints(self, hints: Vec<RoleHint>) -> Self {
        self.set(|builder| builder.hints.extend(hints))
    }

    /// Adds the hints of this model.
    #[must_use]
    pub fn roles_of(self, model: &impl Roles) -> Self {
        self.hints(model.roles())
    }

    /// Adds a rule; it overrides those before it.
    #[must_use]
    pub fn rule(self, rule: Rule) -> Self {
        self.set(|builder| builder.rules.push(rule))
    }

    /// Gives the directions that rules name in their [`Project`](super::Project), each tensor by the path of its parameter and
    /// `.input` or `.output`: training leaves them as they are. A second call with the same name replaces those of the first.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use burn::tensor::TensorData;
    /// # use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, optim::GradientsParams, tensor::{Device, Tensor}};
    /// use polaron::Layerwise;
    /// use polaron::layerwise::{Project, Rule, RuleOptimizer};
    /// # #[derive(Module, Debug)]
    /// # struct Model { hidden: Linear }
    /// # let device = Device::flex().autodiff();
    /// # let linear = LinearConfig::new(3, 4).with_bias(false).with_initializer(Initializer::Ones);
    /// # let model = Model { hidden: linear.init(&device) };
    ///
    /// // What the layer makes of the first two of its three inputs, which an earlier task used, stays.
    /// let used = TensorData::new(vec![1.0_f32, 0.0, 0.0, 1.0, 0.0, 0.0], [3, 2]);
    /// let used = BTreeMap::from([("hidden.weight.input".to_string(), used)]);
    /// let rule = Rule::path("hidden", RuleOptimizer::inherited())?.with_project(Project::inputs("earlier task"));
    /// let mut optimizer = Layerwise::muon().rule(rule).directions("earlier task", used).build(&model)?;
    /// # let loss = model.hidden.forward(Tensor::<2>::ones([2, 3], &device)).square().mean();
    /// # let grads = GradientsParams::from_grads(loss.backward(), &model);
    /// let model = optimizer.step(1.0, model, grads);
    /// let weights: Vec<f32> = model.hidden.weight.val().into_data().iter::<f32>().collect();
    /// assert!(weights[..8] == [1.0; 8] && weights[8] != 1.0);
    /// # Ok::<(), polaron::layerwise::LayerwiseError>(())
    /// ```
    ///
    /// In a configuration names are those of files, which the program reads ([`LayerwiseConfig::direction_files`]):
    ///
    /// ```toml
    /// [[optimizer.rule]]
    /// role = ["gate", "up", "down"]
    /// project = { input = "task.safetensors" }
    /// ```
    #[must_use]
    pub fn directions(self, name: impl Into<String>, tensors: BTreeMap<String, TensorData>) -> Self {
        self.set(|builder| builder.directions.add(name.into(), tensors))
    }

    /// Freezes the parameters that a glob or `/regex/` matches: no update, no decay, no state, no part in the clipped norm;
    /// the plan shows them as frozen. Rules and roles are not needed for them. Gradients that they have are ignored;
    /// [`LayerwiseOptimizer::without_frozen_gradients`] keeps a backward pass from computing them.
    ///
    /// ```
    /// use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, tensor::Device};
    /// use polaron::Layerwise;
    ///
    /// #[derive(Module, Debug)]
    /// struct Mlp { hidden: Linear, output: Linear }
    ///
    /// let device = Device::flex().autodiff();
    /// let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Ones);
    /// let model = Mlp { hidden: linear(8, 16).init(&device), output: linear(16, 4).init(&device) };
    /// let optimizer = Layerwise::muon().freeze("hidden").build(&model)?;
    /// let model = optimizer.without_frozen_gradients(model);
    /// assert_eq!((optimizer.plan().parameters(), optimizer.plan().frozen()), (212, 144));
    /// assert!(!model.hidden.weight.is_require_grad());
    /// # Ok::<(), polaron::layerwise::LayerwiseError>(())
    /// ```
    #[must_use]
    pub fn freeze(self, pattern: impl Into<String>) -> Self {
        self.set(|builder| builder.frozen.push(pattern.into()))
    }

    /// Freezes every parameter whose role is none of these, for example all but the factors of adapters
    /// ([`Role::ADAPTERS`]). An empty list freezes nothing.
    #[must_use]
    pub fn train_only(self, roles: impl Into<Vec<Role>>) -> Self {
        self.set(|builder| builder.trained = roles.into())
    }

    /// Makes learning rates follow the width of the model by the rules muP (arXiv 2203.03466), so that the best one does
    /// not change: each is multiplied by `ratio^-e`, where e is
    /// [`OptimizerConfig::width_exponent`](crate::OptimizerConfig::width_exponent) and `ratio` the width over that of the
    /// model for which the rates were found. The model must divide its logits by `ratio`.
    ///
    /// [`Layerwise::build`] then refuses a rule whose exponent is not known.
    #[must_use]
    pub fn width(self, ratio: f64) -> Self {
        self.set(|builder| builder.width = Some(ratio))
    }

    /// Multiplies the learning rates of AdamW by a factor for each role, in all rules; 1 by default.
    ///
    /// For the width rules muP (arXiv 2203.03466) of an entrywise optimizer: `1 / width` for hidden matrices. Matrix rules
    /// are unchanged: the size of their updates follows the shape by their `scale`.
    #[must_use]
    pub fn adamw_lr_factors(self, factor: impl Fn(Role) -> f64) -> Self {
        self.set(|builder| builder.adamw_factors = Role::ALL.map(|role| (role, factor(role))).to_vec())
    }

    /// Gives part of the parameters a schedule of their own; it overrides those before it. All others follow the factor that
    /// is given to a step. [`LayerwiseOptimizer::set_step`] must be called before every step.
    ///
    /// ```
    /// use burn::{module::Module, nn::{Initializer, Linear, LinearConfig}, optim::GradientsParams, tensor::{Device, Tensor}};
    /// use polaron::{Layerwise, Role, Schedule, layerwise::ScheduleRule};
    ///
    /// # #[derive(Module, Debug)]
    /// # struct Mlp { hidden: Linear, output: Linear }
    /// # let device = Device::flex().autodiff();
    /// # let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).with_initializer(Initializer::Ones);
    /// # let mut model = Mlp { hidden: linear(8, 16).init(&device), output: linear(16, 4).init(&device) };
    /// // The matrices are constant and cool down over the last 40 %, what AdamW updates warms up and follows a cosine.
    /// let matrices = Schedule { decay_fraction: 0.4, ..Schedule::wsd(0) };
    /// let adamw = ScheduleRule::optimizer("adamw", Schedule::cosine(100))?;
    /// let mut optimizer = Layerwise::muon().assign("output", Role::Head).schedule(adamw).build(&model)?;
    /// for step in 0..3 {
    /// #   let loss = model.output.forward(model.hidden.forward(Tensor::<2>::ones([2, 8], &device))).mean();
    /// #   let grads = GradientsParams::from_grads(loss.backward(), &model);
    ///     // …
    ///     optimizer.set_step(step, 1000)?;
    ///     model = optimizer.step(matrices.factor(step, 1000), model, grads);
    /// }
    /// # Ok::<(), polaron::layerwise::LayerwiseError>(())
    /// ```
    #[must_use]
    pub fn schedule(self, rule: ScheduleRule) -> Self {
        self.set(|builder| builder.schedules.push(rule))
    }

    /// Changes the momentum of the matrix rules over the steps, for the matrices of the blocks ([`Role::MATRICES`], and those
    /// without a role). [`LayerwiseOptimizer::set_step`] must be called before every step.
    #[must_use]
    pub fn momentum_schedule(self, momentum: MomentumSchedule) -> Self {
        self.set(|builder| builder.momentum = Some(momentum))
    }

    /// The schedules of a `[schedule]` table but the main one, whose factor is given to a step.
    ///
    /// # Errors
    /// Those of [`ScheduleConfig::rules`].
    pub fn schedules(self, config: &ScheduleConfig) -> Result<Self, LayerwiseError> {
        let (rules, momentum) = (config.rules()?, config.momentum);
        Ok(self.set(|builder| {
            builder.schedules.extend(rules);
            builder.momentum = momentum.or(builder.momentum);
        }))
    }

    fn change(mut self, f: impl FnOnce(&mut LayerwiseConfig)) -> Self {
        if let Some(config) = &mut self.base {
            f(config);
        }
        self
    }

    fn set(mut self, f: impl FnOnce(&mut Self)) -> Self {
        f(&mut self);
        self
    }

    fn all_rules(&self) -> Result<Vec<Rule>, LayerwiseError> {
        let mut rules = self.base.as_ref().map_or(Ok(Vec::new()), |config| config.rules())?;
        rules.extend(self.rules.iter().cloned());
        // After all others, whatever was said first.
        rules.extend((!self.trained.is_empty()).then(|| Rule::others(self.trained.clone(), PlannedOptimizer::Frozen)));
        for pattern in &self.frozen {
            rules.push(Rule::path(pattern, PlannedOptimizer::Frozen)?);
        }
        Ok(rules)
    }

    fn decide<M: Module>(&self, module: &M) -> Result<(Plan, Vec<AnyOptimizer>), LayerwiseError> {
        let rules = self.all_rules()?;
        self.check_numbers(&rules)?;
        let decision = Decision {
            rules: &rules,
            hints: &self.hints,
            assignments: &self.assignments,
            lr: self.lr,
            adamw_factors: &self.adamw_factors,
            width: self.width,
            schedules: &self.schedules,
            momentum: self.momentum,
            directions: &self.directions,
        };
        let plan = decide(&ParameterInfo::of_module(module), &decision)?;
        let optimizers = plan
            .entries()
            .iter()
            .map(|entry| match &entry.optimizer {
                PlannedOptimizer::Own(optimizer) => Ok(optimizer.clone().with_projection(entry.projection.clone())),
                PlannedOptimizer::Frozen => Ok(AnyOptimizer::new(Frozen)),
                PlannedOptimizer::Kind(config) => {
                    let pipeline = config.build(entry.placement)?.with_stream(stream(&entry.path));
                    let pipeline = pipeline.with_projection(entry.projection.clone());
                    Ok(AnyOptimizer::new(pipeline).with_label(config.kind()))
                }
            })
            .collect::<Result<Vec<_>, LayerwiseError>>()?;
        Ok((plan, optimizers))
    }

    /// Refuses numbers with which training would fail, such as a negative learning rate.
    fn check_numbers(&self, rules: &[Rule]) -> Result<(), LayerwiseError> {
        LayerwiseError::check_rate("lr", self.lr)?;
        for rule in rules {
            if let Some(rate) = rule.rate {
                LayerwiseError::check_rate(format!("the lr of the {}", rule.name()), rate.number())?;
            }
        }
        self.schedules.iter().try_for_each(ScheduleRule::check)?;
        self.momentum.as_ref().map_or(Ok(()), check_momentum)?;
        for (role, factor) in &self.adamw_factors {
            LayerwiseError::check_rate(format!("the factor of AdamW's learning rate for the role {role}"), *factor)?;
        }
        Ok(())
    }

    /// The plan of the optimizer of a module, from the shapes of its parameters: they need no values yet.
    ///
    /// # Errors
    /// Those of [`Layerwise::build`] that do not depend on values.
    pub fn plan<M: Module>(&self, module: &M) -> Result<Plan, LayerwiseError> {
        LayerwiseError::check_threshold("clip", self.clip)?;
        LayerwiseError::check_threshold("qk_clip", self.qk_clip)?;
        Planned::of(module)?;
        let (plan, _) = self.decide(module)?;
        self.wrapper.as_ref().map(|config| Wrapper::new(config, plan.trained(module))).transpose()?;
        Ok(plan.with_wrapper(self.wrapper.clone()))
    }

    /// The optimizer of a module.
    ///
    /// # Errors
    /// If a parameter has no role, two roles, no rule or two paths, a rule, a schedule or an assignment matches nothing or is
    /// overridden everywhere, a pattern that freezes matches nothing or everything is frozen, a parameter of a matrix rule
    /// is not a matrix, a matrix is zero whose rule steps by its norm, directions that are to stay as they are do not fit, or a number
    /// is out of range.
    pub fn build<M: Module>(self, module: &M) -> Result<LayerwiseOptimizer, LayerwiseError> {
        let clip = LayerwiseError::check_threshold("clip", self.clip)?;
        let qk_clip = LayerwiseError::check_threshold("qk_clip", self.qk_clip)?;
        let planned = Planned::of(module)?;
        let (plan, optimizers) = self.decide(module)?;
        check_norms(module, &planned, &plan, &optimizers)?;
        let mut groups: Vec<Group> = Vec::new();
        for (entry, optimizer) in plan.entries().iter().zip(&optimizers).filter(|(entry, _)| !entry.is_frozen()) {
            let Some(number) = planned.names.iter().position(|name| *name == entry.path) else { continue };
            let form = &planned.forms[number];
            let group = Group::new(number, optimizer, entry, form).map_err(|error| {
                let (path, optimizer, message) = (entry.path.clone(), entry.label(), error.to_string());
                LayerwiseError::DoesNotFit { path, role: entry.role_name(), optimizer, message }
            })?;
            if !groups.iter_mut().any(|known| known.join(&group)) {
                groups.push(group);
            }
        }
        let around = self.wrapper.as_ref().map(|config| Wrapper::new(config, plan.trained(module))).transpose()?;
        let plan = plan.with_wrapper(self.wrapper);
        Ok(LayerwiseOptimizer::new(plan, groups, planned, clip, qk_clip).with_wrapper(around))
    }

    /// The same plan as plain Burn objects, for Burn's `Learner` or your own training loop.
    ///
    /// `factor(step)`, from step 0, multiplies every learning rate. Burn clips every tensor
    /// separately, so this form has no global-norm clipping and no QK-clip: turn them off, as in
    /// `Layerwise::muon().clip(None)`.
    ///
    /// # Errors
    /// The errors of [`Layerwise::build`], and if a clip or a schedule of its own is set or a weight decay is independent of the
    /// learning rate, which this form does not have.
    ///
    /// # Panics
    /// Later, where Burn's interface has no errors: the scheduler panics on a factor that is negative or not finite,
    /// `ModuleOptimizer::load_record` on a state that does not fit its parameter.
    pub fn build_module_optimizer<M: Module>(
        self,
        module: &M,
        factor: impl Fn(u64) -> f64 + Send + Sync + 'static,
    ) -> Result<(ModuleOptimizer, ModuleLrScheduler), LayerwiseError> {
        for (what, threshold) in [("clip", self.clip), ("qk_clip", self.qk_clip)] {
            if let Some(threshold) = LayerwiseError::check_threshold(what, threshold)? {
                return Err(LayerwiseError::CannotCarry { what, threshold });
            }
        }
        if let Some(wrapper) = &self.wrapper {
            return Err(LayerwiseError::CannotWrap { wrapper: wrapper.kind() });
        }
        if !self.schedules.is_empty() || self.momentum.is_some() {
            return Err(LayerwiseError::CannotSchedule);
        }
        let planned = Planned::of(module)?;
        let (plan, optimizers) = self.decide(module)?;
        check_norms(module, &planned, &plan, &optimizers)?;
        let factor: Factor = Arc::new(factor);
        let mut module_optimizer = ModuleOptimizer::from(Uncovered);
        let mut scheduler = ModuleLrScheduler::new(ScheduledLr::new(self.lr, factor.clone()));
        for (entry, optimizer) in plan.entries().iter().zip(optimizers) {
            let group = ParamGroup::from_path(entry.path.clone());
            if entry.decays_independently() {
                return Err(LayerwiseError::NoFactor { path: entry.path.clone(), optimizer: entry.label() });
            }
            if let Some(number) = planned.names.iter().position(|name| *name == entry.path) {
                let form = planned.forms[number].clone();
                let optimizer = OfParameter { optimizer, path: entry.path.clone(), form };
                module_optimizer = module_optimizer.with_group(group.clone(), optimizer, None);
            }
            scheduler = scheduler.with_group(group, ScheduledLr::new(entry.lr, factor.clone()));
        }
        Ok((module_optimizer, scheduler))
    }
}

/// A number that follows from the path of a parameter alone.
fn stream(path: &str) -> u64 {
    path.bytes().fold(0, |hash, byte| splitmix64(hash ^ u64::from(byte)))
}

impl Default for Layerwise {
    fn default() -> Self {
        Self::new()
    }
}
