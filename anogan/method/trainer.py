"""The training step: losses, updates and EMA of G, D and E, on one device or many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf

import ops
from anogan.config import Config
from anogan.data.image_set import ImageSet
from anogan.errors import UserError
from anogan.method.networks import Networks
from anogan.method.synthetic import ReplicaSlice, plant_anomalies, plant_defects
from anogan.method.windows import Windows
from anogan.runs.distributed import Workers, graph_of

BETA2 = {True: 0.999, False: 0.99}  # of Adam: of the classic preset, of the default
EMA_DECAY = 0.995  # of all networks' weights, a step
KL_WEIGHT = 8.0  # of the latent's prior in E's loss
PIXEL_WEIGHT = 5.0  # of D's pixels in its loss
R1_WEIGHT = 1.0  # of the gradient penalty
R1_EVERY = 16  # steps (lazy regularisation, Karras et al. 2020, section 3.1)


class Averages:
    """The EMA of a training's networks, with which images are scored, and the step it is of."""

    def __init__(self, ema: Networks):
        self.ema = ema
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=once)
        self.optimisers: dict[str, keras.optimizers.Optimizer] = {}

    @property
    def steps_done(self) -> int:
        return int(self.step.numpy())

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds of it, by name."""
        nets = {f"{name}_average": net for name, net in self.ema.trained().items()}
        return {"step": self.step, **nets}


class Trainer(Averages):
    """The networks in training, their EMA, their optimisers, and the step they have reached."""

    def __init__(self, config: Config, nets: Networks, averages: Averages, workers: Workers):
        """averages: of networks that follow nets, or of nets themselves where there is no EMA."""
        self.config, self.nets, self.workers = config, nets, workers
        self.ema, self.step = averages.ema, averages.step
        self.windows = Windows(config.height, config.width, config.window)
        self.optimisers = {}
        for name, net in nets.trained().items():
            self.optimisers[name] = keras.optimizers.Adam(
                config.learning_rate, config.beta1, BETA2[config.is_classic]
            )
            self.optimisers[name].build(net.trainable_variables)
        self._train_step = graph_of(self._step_everywhere)
        self._penalty_step = graph_of(self._penalty_everywhere)

    def parts(self) -> dict[str, Any]:
        optimisers = {f"{name}_optimiser": o for name, o in self.optimisers.items()}
        return {**super().parts(), **self.nets.trained(), **optimisers}

    def update(self, x: Any) -> dict[str, tf.Tensor]:
        """One training step on a batch (b, h, w, c) in [-1, 1]; the losses, as tensors.

        With several devices the batch is a tf.distribute value, see `batches`.
        """
        if not self.config.is_classic and self.steps_done % R1_EVERY == 0:
            self._penalty_step(x)
        return self._train_step(x)

    def batches(self, images: ImageSet) -> Iterator:
        """An endless iterator of what update takes, from the step that was reached."""
        config, first = self.config, self.steps_done

        def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
            devices = context.num_replicas_in_sync // context.num_input_pipelines
            parts = range(context.num_replicas_in_sync)[context.input_pipeline_id * devices :]
            return images.stream(
                config.batch_size, config.seed, first, parts[:devices], len(parts) + parts.start
            )

        return iter(self.workers.strategy.distribute_datasets_from_function(pipeline))

    def variables(self) -> list:
        """All that a checkpoint holds."""
        nets = [*self.nets.trained().values(), *self.ema.trained().values()]
        found = [v for net in nets for v in net.weights]
        found += [v for optimiser in self.optimisers.values() for v in optimiser.variables]
        return [*found, self.step]

    def finite(self) -> bool:
        """Whether no variable of a checkpoint is NaN or infinite."""
        some = [v for v in self.variables() if tf.as_dtype(v.dtype).is_floating]
        return bool(tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in some]))

    def settle(self, images: ImageSet, rest: ImageSet, precision: str) -> None:
        """Before the first step: all workers have the same images, settings, and weights.

        rest: those of the images that are trained on.
        """
        team, batch = self.workers, self.config.batch_size
        if team.replicas > 1 and batch % (2 * team.replicas):
            raise UserError(
                f"--batch_size {batch} cannot be shared out among {team.replicas} devices: "
                f"give a multiple of {2 * team.replicas}"
            )
        if team.count == 1:
            return
        team.agree(
            {
                "images": crc32("\n".join(images.names).encode()),
                "held-out images": crc32("\n".join(rest.names).encode()),
                "settings": crc32(repr(self.config).encode()),
                "precision": crc32(precision.encode()),
            }
        )
        for kind in (np.float32, np.int64):
            some = [v for v in self.variables() if np.issubdtype(v.numpy().dtype, kind)]
            flat = np.concatenate([np.ravel(v.numpy()).astype(kind) for v in some])
            flat, start = team.from_chief(flat), 0
            for v in some:
                size = int(np.prod(v.shape))
                v.assign(flat[start : start + size].reshape(v.shape))
                start += size

    def seeds(self, count: int) -> list:
        """Seeds for this step, so that a continued run draws what the unbroken one would."""
        seed = tf.stack([self.config.seed * 8, tf.cast(self.step, tf.int32)])
        return tf.unstack(tf.random.experimental.stateless_split(seed, count))

    def _step_everywhere(self, x: Any) -> dict[str, tf.Tensor]:
        """One training step on all devices, x the global batch; the losses over all of it."""
        strategy = self.workers.strategy
        losses = strategy.run(self.one_step, (x,))
        if self.ema is not self.nets:
            self._follow()
        values = strategy.reduce("MEAN", losses, axis=None)
        encoders = ("reconstruction_loss", "kl_loss") if self.nets.encoder else ()
        names = ("d_loss", "g_loss", *encoders)
        return dict(zip(names, tf.unstack(values), strict=True))

    def _penalty_everywhere(self, x: Any) -> None:
        self.workers.strategy.run(self._one_penalty_step, (x,))

    def one_step(self, x: tf.Tensor) -> tf.Tensor:
        """One update of G, D and E from the same forward pass; x (b, h, w, c) in [-1, 1].

        E and G are trained together as in VAE/GAN (Larsen et al. 2016): half of the latents
        are E's, whose images must come close to x in pixels and in D's features (the izi_f
        loss of Schlegl et al. 2019, section 2.2); the pixel and feature weights follow the
        errors themselves (the optimal-variance decoder of Rybkin et al. 2021). D also learns which
        pixels of synthetic anomalies are abnormal; small ones are for its pixels alone. The classic
        preset has neither E nor synthetic anomalies: that is Radford et al. 2016.

        x is this device's part of the global batch. Means and random numbers are the global
        batch's, so that the step does not depend on the number of devices.
        """
        config, nets, classic = self.config, self.nets, self.config.is_classic
        seeds = self.seeds(5)
        context, replica = _this_replica()
        x = self.windows.random(x, seeds[4], replica)
        b = tf.shape(x)[0]
        half = b // 2
        z = replica.draw(tf.random.stateless_normal, [b, config.z_dim], seeds[0])
        if not classic:
            planted, large = plant_anomalies(x[:half], seeds[1], replica)
            defective, small = plant_defects(x, seeds[3], replica)
        pixels = float(np.prod(config.net_shape))
        with tf.GradientTape(persistent=True) as tape:
            if nets.encoder:
                # E learns to undo synthetic anomalies, so that an anomaly is not drawn again.
                whole = replica.draw(tf.random.stateless_uniform, [half, 1, 1, 1], seeds[2]) < 0.5
                seen = tf.where(whole, x[:half], planted)
                mean, log_variance = tf.split(nets.encoder(seen, training=True), 2, axis=1)
                log_variance = tf.clip_by_value(log_variance, -8.0, 4.0)
                z = tf.concat([mean + tf.exp(log_variance / 2) * z[:half], z[half:]], 0)
            g = nets.generator(z, training=True)
            first, second = tf.split(g, [half, b - half])
            seen_by_d = x if classic else tf.concat([x, planted, defective], 0)
            logits, features, *pixel_logits = nets.discriminator(seen_by_d, training=True)
            real, fx = logits[:b], features[:half]
            # Passes as small as the gradients need: only the first half has a loss of features.
            fakes = [g] if classic else [first, second]
            fakes = [nets.discriminator(images, training=True) for images in fakes]
            fake, fg = tf.concat([logits for logits, *_ in fakes], 0), fakes[0][1]
            d_loss = ops.discriminator_loss(real, fake)
            if pixel_logits:
                d_loss += tf.reduce_mean(tf.nn.softplus(logits[b : b + half]))
                none = tf.zeros((b, *large.shape[1:]))
                where = tf.concat([none, large, small], 0)
                where = tf.nn.max_pool2d(where, 2, 2, "SAME")
                d_loss += PIXEL_WEIGHT * ops.pixel_loss(pixel_logits[0], where)
            g_loss = ops.generator_loss(fake)
            if nets.encoder:
                r = tf.reduce_mean(ops.distance(x[:half], first, True)) / pixels
                f = tf.reduce_mean(ops.distance(tf.stop_gradient(fx), fg[:half], True))
                kl = tf.reduce_mean(ops.kl_divergence(mean, log_variance))
                means = tf.stop_gradient(tf.stack([r, f]))
                if replica.count > 1:
                    means = context.all_reduce("MEAN", means)
                likeness = 0.5 * (r / means[0] + f / means[1])
                prior = 2.0 * KL_WEIGHT * kl / pixels
        # Backward through D once for each loss, and from there on through G.
        self.apply("discriminator", tape.gradient(d_loss, self.weights_of("discriminator")))
        towards, losses = tape.gradient(g_loss, g), [d_loss, g_loss]
        if nets.encoder:
            from_e = tape.gradient(likeness, g)
            towards += from_e
            ends, starts = [g, prior], [from_e, tf.ones_like(prior)]
            self.apply("encoder", tape.gradient(ends, self.weights_of("encoder"), starts))
            losses = [d_loss, g_loss + likeness + prior, r, kl]
        self.apply("generator", tape.gradient(g, self.weights_of("generator"), towards))
        self.step.assign_add(1)
        return tf.stack(losses)

    def weights_of(self, name: str) -> list:
        """The variables of a network that its optimiser moves."""
        return self.nets.trained()[name].trainable_variables

    def apply(self, name: str, gradients: list) -> None:
        """Has a network's optimiser take one step."""
        variables = self.weights_of(name)
        part = 1.0 / self.workers.replicas  # Keras adds the devices' gradients up
        gradients = [
            tf.zeros_like(v) if g is None else g * part  # D's last bias has none in the penalty
            for g, v in zip(gradients, variables, strict=True)
        ]
        self.optimisers[name].apply_gradients(zip(gradients, variables, strict=True))

    def _follow(self) -> None:
        """Moves the EMA towards the trained weights."""
        step = tf.cast(self.step, tf.float32)
        # at first faster: the weights of the start should be forgotten soon
        rate = 1.0 - tf.minimum(EMA_DECAY, (1.0 + step) / (10.0 + step))
        ema = self.ema.trained()
        for name, net in self.nets.trained().items():
            for mine, theirs in zip(ema[name].weights, net.weights, strict=True):
                part = rate if theirs.trainable else 1.0
                self.workers.strategy.extended.update(
                    mine.value,
                    lambda a, b, part=part: a.assign(a + (b - a) * part),
                    (theirs.value,),
                )

    def _one_penalty_step(self, x: tf.Tensor) -> tf.Tensor:
        """The gradient penalty's own update of D, every R1_EVERY steps."""
        x = self.windows.random(x, self.seeds(5)[4], _this_replica()[1])
        with tf.GradientTape() as tape:
            penalty = ops.gradient_penalty(self.nets.discriminator, x)
            loss = 0.5 * R1_EVERY * R1_WEIGHT * penalty
        self.apply("discriminator", tape.gradient(loss, self.weights_of("discriminator")))
        return penalty


def _this_replica() -> tuple[Any, ReplicaSlice]:
    """The context of tf.distribute, and which images of the global batch are this replica's."""
    context = tf.distribute.get_replica_context()
    return context, ReplicaSlice(context.replica_id_in_sync_group, context.num_replicas_in_sync)
