"""The training step: losses, updates and EMA of G, D and E, on one device or many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf

import ops
from anogan.config import Config
from anogan.data.image_set import ImageSet
from anogan.errors import UserError
from anogan.method.networks import SKIP, Networks
from anogan.method.synthetic import plant_anomalies, plant_defects
from anogan.method.windows import Windows
from anogan.runs.distributed import ReplicaSlice, Workers, graph_of


class Averages:
    """The EMA of a training's networks, with which images are scored, and the step it is of."""

    def __init__(self, ema: Networks):
        self.ema = ema
        once = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=once)

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
        self.optimisers: dict[str, keras.optimizers.Optimizer] = {}
        for name, net in nets.trained().items():
            self.optimisers[name] = keras.optimizers.Adam(
                config.learning_rate, config.beta1, config.recipe.beta2
            )
            self.optimisers[name].build(net.trainable_variables)
        self._train_step = graph_of(self._step_everywhere)
        self._penalty_step = graph_of(self._penalty_everywhere)

    def parts(self) -> dict[str, Any]:
        optimisers = {f"{name}_optimiser": o for name, o in self.optimisers.items()}
        return {**super().parts(), **self.nets.trained(), **optimisers}

    def set_learning_rate(self) -> None:
        """Sets config's, after a checkpoint has brought the one of before."""
        for optimiser in self.optimisers.values():
            optimiser.learning_rate.assign(self.config.learning_rate)

    def update(self, x: Any) -> dict[str, tf.Tensor]:
        """One training step on a batch (b, h, w, c) in [-1, 1]; the losses, as tensors.

        With several devices the batch is a tf.distribute value, see `batches`.
        """
        recipe = self.config.recipe
        if recipe.r1_weight and self.steps_done % recipe.r1_every == 0:
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

        E and G are trained together as in VAE/GAN (Larsen et al. 2016): half of the latents are
        E's, whose images must come close to x in pixels and in D's features (the izi_f loss of
        Schlegl et al. 2019, section 2.2). With D's loss L_D (see `_discriminate`):

            L_G = -E[log sigmoid(D(G(z)))] + L_rec                 adversarial + reconstruction
            L_E = L_rec + 2 kl_weight E[KL(N(mean, variance) || N(0, 1))] / pixels

        Without E there is L_D and the adversarial loss alone: that is Radford et al. 2016.

        x is this device's part of the global batch. Means and random numbers are the global
        batch's, so that the step does not depend on the number of devices.
        """
        config, nets = self.config, self.nets
        seeds, replica = self.seeds(5), _replica()
        x = self.windows.random(x, seeds[4], replica)
        b = tf.shape(x)[0]
        half = b // 2
        z = replica.draw(tf.random.stateless_normal, [b, config.z_dim], seeds[0])
        planted = _plant(x, seeds, replica) if config.recipe.synthetic_anomalies else None
        with tf.GradientTape(persistent=True) as tape:
            if nets.encoder:
                mean, log_variance = self._encode(x[:half], planted, seeds[2], replica)
                z = tf.concat([mean + tf.exp(log_variance / 2) * z[:half], z[half:]], 0)
            g = nets.generator(z, training=True)
            # Passes through D as small as the gradients need: only the first half's has features.
            parts = tf.split(g, [half, b - half]) if nets.encoder else [g]
            d_loss, fake, fx, fg = self._discriminate(x, parts, planted)
            adversarial = ops.generator_loss(fake)
            if nets.encoder:
                residual, reconstruction = _reconstruction(x[:half], parts[0], fx, fg)
                kl = tf.reduce_mean(ops.kl_divergence(mean, log_variance))
                prior = 2.0 * config.recipe.kl_weight * kl / float(np.prod(config.net_shape))
        # Backward through D once for each loss, and from g on through G and E.
        d_gradients = tape.gradient(d_loss, self.weights_of("discriminator"))
        self.apply("discriminator", d_gradients)
        g_loss_by_g = tape.gradient(adversarial, g)
        losses = [d_loss, adversarial]
        if nets.encoder:
            reconstruction_by_g = tape.gradient(reconstruction, g)
            g_loss_by_g += reconstruction_by_g
            e_gradients = tape.gradient(
                [g, prior],
                self.weights_of("encoder"),
                output_gradients=[reconstruction_by_g, tf.ones_like(prior)],
            )
            self.apply("encoder", e_gradients)
            losses = [d_loss, adversarial + reconstruction + prior, residual, kl]
        g_gradients = tape.gradient(g, self.weights_of("generator"), output_gradients=g_loss_by_g)
        self.apply("generator", g_gradients)
        self.step.assign_add(1)
        return tf.stack(losses)

    def _encode(
        self, x: tf.Tensor, planted: Planted | None, seed: tf.Tensor, replica: ReplicaSlice
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """E's means and log variances (b, z_dim) of x (b, h, w, c).

        It learns to undo synthetic anomalies, which half of x have, so that none is drawn again.
        """
        assert self.nets.encoder
        if planted:
            whole = replica.draw(tf.random.stateless_uniform, [tf.shape(x)[0], 1, 1, 1], seed) < 0.5
            x = ops.select(whole, x, planted.damaged)
        mean, log_variance = tf.split(self.nets.encoder(x, training=True), 2, axis=1)
        return mean, tf.clip_by_value(log_variance, *self.config.recipe.log_variance)

    def _discriminate(
        self, x: tf.Tensor, g: list[tf.Tensor], planted: Planted | None
    ) -> tuple[tf.Tensor, ...]:
        """D's loss, its logits (b, 1) of G(z), its features of x's first half and of g's first.

            L_D = -E[log sigmoid(D(x))] - E[log(1 - sigmoid(D(G(z))))]
                  - E[log(1 - sigmoid(D(damaged)))] + pixel_weight BCE(pixels, normal)

        D also learns which pixels of synthetic anomalies are abnormal; small ones (defects) are
        for its pixels alone.
        """
        recipe, discriminator = self.config.recipe, self.nets.discriminator
        b = tf.shape(x)[0]
        half = b // 2
        seen = tf.concat([x, planted.damaged, planted.defective], 0) if planted else x
        logits, features, *pixels = discriminator(seen, training=True)
        fakes = [discriminator(part, training=True) for part in g]
        fake, fg = tf.concat([logits for logits, *_ in fakes], 0), fakes[0][1]
        d_loss = ops.discriminator_loss(logits[:b], fake)
        if planted:
            d_loss += ops.fake_loss(logits[b : b + half])
            nowhere = tf.zeros((b, *planted.damage.shape[1:]))
            where = tf.concat([nowhere, planted.damage, planted.defects], 0)
            where = tf.nn.max_pool2d(where, 2, 2, "SAME")  # of the size of D's pixels
            pixel_loss = ops.pixel_loss(pixels[0], where, recipe.anomalous_pixel_weight)
            d_loss += recipe.pixel_weight * pixel_loss
        return d_loss, fake, features[:half], fg

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
        rate = 1.0 - tf.minimum(self.config.recipe.ema_decay, (1.0 + step) / (10.0 + step))
        ema = self.ema.trained()
        for name, net in self.nets.trained().items():
            for mine, theirs in zip(ema[name].weights, net.weights, strict=True):
                if SKIP in theirs.path:  # which both have from the start, and keep
                    continue
                part = rate if theirs.trainable else 1.0
                self.workers.strategy.extended.update(
                    mine.value,
                    lambda a, b, part=part: a.assign(a + (b - a) * part),
                    (theirs.value,),
                )

    def _one_penalty_step(self, x: tf.Tensor) -> tf.Tensor:
        """The gradient penalty's own update of D, every r1_every steps.

        1/2 r1_weight E[||dD(x)/dx||^2], as many times as steps go without it (lazy regularisation,
        Karras et al. 2020, section 3.1).
        """
        recipe = self.config.recipe
        x = self.windows.random(x, self.seeds(5)[4], _replica())
        with tf.GradientTape() as tape:
            penalty = ops.gradient_penalty(self.nets.discriminator, x)
            loss = 0.5 * recipe.r1_every * recipe.r1_weight * penalty
        self.apply("discriminator", tape.gradient(loss, self.weights_of("discriminator")))
        return penalty


class Planted(NamedTuple):
    """Synthetic anomalies in a batch x (b, h, w, c), and masks (…, h, w, 1) of where they are."""

    damaged: tf.Tensor  # (b / 2, h, w, c), large ones in the first half of x
    damage: tf.Tensor
    defective: tf.Tensor  # (b, h, w, c), mostly small ones in x
    defects: tf.Tensor


def _plant(x: tf.Tensor, seeds: list, replica: ReplicaSlice) -> Planted:
    large = plant_anomalies(x[: tf.shape(x)[0] // 2], seeds[1], replica)
    return Planted(*large, *plant_defects(x, seeds[3], replica))


def _reconstruction(
    x: tf.Tensor, g: tf.Tensor, fx: tf.Tensor, fg: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """(R, L_rec) of images (b, h, w, c), their reconstructions, and D's features of both.

        R = E[||x - g||^2] / pixels,  F = E[||f(x) - f(g)||^2],  L_rec = 1/2 (R / |R| + F / |F|)

    |.| is a number, without a gradient: the weights follow the errors themselves, which is the
    optimal-variance decoder of Rybkin et al. 2021.
    """
    residual = tf.reduce_mean(ops.distance(x, g, True)) / float(np.prod(x.shape[1:]))
    features = tf.reduce_mean(ops.distance(tf.stop_gradient(fx), fg, True))
    means = tf.stop_gradient(tf.stack([residual, features]))
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        means = context.all_reduce("MEAN", means)
    return residual, 0.5 * (residual / means[0] + features / means[1])


def _replica() -> ReplicaSlice:
    """Which images of the global batch are this replica's."""
    context = tf.distribute.get_replica_context()
    return ReplicaSlice(context.replica_id_in_sync_group, context.num_replicas_in_sync)
