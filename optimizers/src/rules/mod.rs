//! Rules, one file each, and their registry: one line for each kind, from which all lists are derived.
//!
//! The same configuration in JSON, TOML and Rust, tagged by `kind`:
//!
//! ```
//! use polaron::OptimizerConfig;
//!
//! let config: OptimizerConfig = serde_json::from_str(r#"{"kind": "muon", "momentum": 0.9}"#)?;
//! assert_eq!(config.kind(), "muon");
//! // a misspelt key is an error that names the nearest valid one
//! let error = serde_json::from_str::<OptimizerConfig>(r#"{"kind": "muon", "momentun": 0.9}"#).unwrap_err();
//! assert!(error.to_string().contains("did you mean `momentum`"));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Keys of every kind (m outputs and n inputs of the processed matrix: one expert, one block):
//!
//! | key | values | default |
//! |---|---|---|
//! | `weight_decay` | 0 or more: `W ← (1 - lr wd) W - lr U` | 0 |
//! | `cautious` | decay only entries where U and W do not have opposite signs | false |
//! | `decay` | `coupled`; `independent`: `(1 - f wd) W`, f the factor of the schedule | `coupled` |
//! | `norm_control` | a method of [`NormControl`](crate::rule::NormControl): `hyperball`, `radial_brake`, `relative`, `floor` | absent |
//!
//! Of every kind with a momentum, all but `adamw` and what keeps its own moments:
//!
//! | key | values | default |
//! |---|---|---|
//! | `momentum`, `momentum_form`, `nesterov` | see [`Momentum`](crate::rule::Momentum) | of the kind |
//! | `second_moment` | `beta`, `eps` of a [`Preconditioner`](crate::rule::Preconditioner) | absent |
//! | `scale` | see [`Scale`](crate::rule::Scale); not of `sgd`, `adamuon`, `error_feedback_muon` | of the kind |
//!
//! An entrywise kind with `norm_control` works on matrices only. The residual of `error_feedback_muon` is what its own step
//! leaves out, before `norm_control` changes that step.
//!
//! ```
//! use polaron::OptimizerConfig;
//!
//! let text = r#"{"kind": "adamw", "norm_control": {"method": "hyperball"}}"#; // AdamH
//! let config: OptimizerConfig = serde_json::from_str(text)?;
//! assert_eq!(config.label(), "adamw (hyperball)");
//! # Ok::<(), serde_json::Error>(())
//! ```

mod config;
mod registry;

use registry::kinds;

kinds! {
    sgd, "sgd": Sgd, SgdConfig;
    adamw, "adamw": AdamW, AdamWConfig;
    muon, "muon": Muon, MuonConfig;
    muon_eq, "muon_eq": MuonEq, MuonEqConfig;
    normuon, "normuon": NorMuon, NorMuonConfig;
    adamuon, "adamuon": AdaMuon, AdaMuonConfig;
    muown, "muown": Muown, MuownConfig;
    #[cfg(feature = "exact")]
    soap, "soap": Soap, SoapConfig;
    #[cfg(feature = "exact")]
    soap_muon, "soap_muon": SoapMuon, SoapMuonConfig;
    regularized_muon, "regularized_muon": RegularizedMuon, RegularizedMuonConfig;
    error_feedback_muon, "error_feedback_muon": ErrorFeedbackMuon, ErrorFeedbackMuonConfig;
    freon, "freon": Freon, FreonConfig;
    kaon, "kaon": Kaon, KaonConfig;
    #[cfg(feature = "exact")]
    random_spectrum, "random_spectrum": RandomSpectrum, RandomSpectrumConfig;
    row_norm, "row_norm": RowNorm, RowNormConfig;
    spectral, "spectral": Spectral, SpectralConfig;
    hybrid, "hybrid": Hybrid, HybridConfig;
    ssd, "ssd": Ssd, SsdConfig;
    polar_grad, "polar_grad": PolarGrad, PolarGradConfig;
    scion, "scion": Scion, ScionConfig;
    #[cfg(feature = "exact")]
    truncated_sgd, "truncated_sgd": TruncatedSgd, TruncatedSgdConfig;
}
