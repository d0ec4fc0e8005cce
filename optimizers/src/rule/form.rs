//! The forms of the momentum; see the table of [`Momentum`](super::Momentum).

use crate::setting::choice;

choice! {
    /// How the momentum buffer is formed; see [`Momentum`](super::Momentum).
    #[derive(Default)]
    pub enum MomentumForm {
        /// Exponential moving average.
        #[default]
        Ema = "ema",
        /// Sum with decay; the buffer is 1/(1-μ) times as large.
        HeavyBall = "heavy_ball",
        /// Average without the bias towards zero of the first steps.
        EmaDebiased = "ema_debiased",
    }
}
