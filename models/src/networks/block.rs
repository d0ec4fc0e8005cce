//! One block of a decoder.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::init::{Deviations, Initializer};
use crate::layers::attention::Attention;
use crate::layers::cache::KeyValues;
use crate::layers::experts::MixtureOfExperts;
use crate::layers::feed_forward::FeedForward;
use crate::layers::lora::Adapted;
use crate::layers::norm::Norm;
use crate::layers::positions::Positions;
use crate::layers::routing::Routing;
use crate::settings::model::ModelConfig;
use crate::shapes::{LargestLogits, Windows};

/// One block: attention, then a feed-forward layer or experts. Each has a norm before it and adds its output to the residual
/// stream.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention.
    pub norm1: Norm,
    /// Attention.
    pub attn: Attention,
    /// Norm after the attention.
    pub post_norm1: Option<Norm>,
    /// Norm before the feed-forward layer or the experts.
    pub norm2: Norm,
    /// Feed-forward layer; `None` with experts.
    pub mlp: Option<FeedForward>,
    /// Experts; `None` with a feed-forward layer.
    pub moe: Option<MixtureOfExperts>,
    /// Norm after the feed-forward layer or the experts.
    pub post_norm2: Option<Norm>,
}

impl Block {
    pub(super) fn new(config: &ModelConfig, layer: usize, init: &Initializer) -> Self {
        let (std, norm) = (Deviations::new(config), || Norm::new(config, config.d_model, init));
        Self {
            norm1: norm(),
            attn: Attention::new(config, layer, std, &init.enter("attn")),
            post_norm1: config.post_norm.then(norm),
            norm2: norm(),
            mlp: (config.experts == 0).then(|| FeedForward::new(config, std, &init.enter("mlp"))),
            moe: (config.experts > 0).then(|| MixtureOfExperts::new(config, std, &init.enter("moe"))),
            post_norm2: config.post_norm.then(norm),
        }
    }

    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        windows: Windows,
        positions: &Positions,
        cache: Option<&mut KeyValues>,
        logits: Option<&mut LargestLogits>,
    ) -> (Tensor<2>, Option<Routing>) {
        let after = |norm: &Option<Norm>, x| match norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let attended = self.attn.forward(self.norm1.forward(x.clone()), windows, positions, cache, logits);
        let x = x + after(&self.post_norm1, attended);
        let (fed, routing) = self.feed(self.norm2.forward(x.clone()));
        (x + after(&self.post_norm2, fed), routing)
    }

    /// Every projection, with its path in the block.
    pub(super) fn projections(&mut self) -> Vec<(String, &mut dyn Adapted)> {
        let Attention { qkv, wq, wk, wv, wo, .. } = &mut self.attn;
        let attention =
            [("qkv", qkv.as_mut()), ("wq", wq.as_mut()), ("wk", wk.as_mut()), ("wv", wv.as_mut()), ("wo", Some(wo))];
        let mut found: Vec<(String, &mut dyn Adapted)> = Vec::new();
        let present = attention.into_iter().filter_map(|(name, projection)| Some((name, projection?)));
        found.extend(present.map(|(name, projection)| (format!("attn.{name}"), projection as &mut dyn Adapted)));
        if let Some(FeedForward { gate, up, down, .. }) = &mut self.mlp {
            found.extend(gate.as_mut().map(|gate| ("mlp.gate".to_owned(), gate as &mut dyn Adapted)));
            found.push(("mlp.up".to_owned(), up));
            found.push(("mlp.down".to_owned(), down));
        }
        if let Some(MixtureOfExperts { router, gate, up, down, .. }) = &mut self.moe {
            found.push(("moe.router".to_owned(), router));
            found.push(("moe.gate".to_owned(), gate));
            found.push(("moe.up".to_owned(), up));
            found.push(("moe.down".to_owned(), down));
        }
        found
    }

    fn feed(&self, x: Tensor<2>) -> (Tensor<2>, Option<Routing>) {
        match (&self.mlp, &self.moe) {
            (Some(mlp), _) => (mlp.forward(x), None),
            (None, Some(moe)) => {
                let (x, routing) = moe.route(x);
                (x, Some(routing))
            }
            (None, None) => unreachable!("either a feed-forward layer or experts"),
        }
    }
}
