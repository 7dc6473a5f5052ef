"""SigLIP B/16 at 256 px from scratch: both towers, the sigmoid loss, batch 32k.

Source:  Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023,
         arXiv:2303.15343, Section 4. Learning rate and weight decay are those that
         SigLIP 2 (2025, arXiv:2502.14786) states for the same recipe.
Run:     python run.py train --config=configs/siglip_b16.py --workdir=$WORKDIR
         with $DATA/captions.jsonl (big_mm.data.jsonl) and $DATA/tokenizer.model
Quick:   python run.py train --config=configs/siglip_b16.py:quick --workdir=$WORKDIR
Result:  full: not run. quick: runs in the tests.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(mode: str = "full") -> ConfigDict:
    """Sections in the order of the run; `quick` shrinks them at the end."""
    c = ConfigDict()
    c.seed = 0
    c.total_steps = "40e9 examples"

    c.preprocess = ConfigDict(
        dict(
            image_ops=common.fixed_image_ops(256),
            text=dict(tokenizer="$DATA/tokenizer.model", length_tokens=64, pad_id=1),
        )
    )
    c.data = ConfigDict(
        dict(
            source=dict(name="data.jsonl:Manifest", path="$DATA/captions.jsonl"),
            batch_examples=32_768,
            image_ops=common.fixed_image_ops(256),
            texts_per_image=1,
            languages=("en",),
            on_error="skip",
        )
    )
    c.model = ConfigDict(
        dict(
            name="models.two_towers:make",
            image=dict(name="models.vit:tower", variant="B/16", image_px=256),
            text=dict(
                name="models.text:transformer",
                variant="B",
                vocab_size=32_000,
                length_tokens=64,
            ),
            bias=-10.0,
            scan=True,
            remat="full",
        )
    )
    c.terms = ConfigDict(dict(sigmoid=dict(name="objectives.contrastive:sigmoid")))
    c.optimizer = ConfigDict(
        dict(
            method="adafactor",
            learning_rate=1e-3,
            weight_decay=1e-4,
            b2_cap=0.95,
            schedule=dict(name="cosine", warmup=20_000),
            clip_norm=1.0,
        )
    )

    c.mesh = (("data", -1),)
    c.sharding = "fsdp"

    c.evals = ConfigDict(dict())
    c.log = ConfigDict(dict(every_steps=50))
    c.checkpoint = ConfigDict(dict(every_steps=2_000, keep_every_steps=100_000))

    if mode == "quick":  # seconds, on the emoji
        c.total_steps = "2 steps"
        c.preprocess.image_ops = common.fixed_image_ops(32)
        c.preprocess.text.update(tokenizer="emoji", length_tokens=8)
        c.data.update(batch_examples=8, image_ops=common.fixed_image_ops(32))
        c.data.source = dict(name="data.emoji:load", languages=("en",))
        c.model.image.update(variant="mu/16", image_px=32)
        c.model.text.update(variant="mu", vocab_size=8_000, length_tokens=8)
        c.optimizer.schedule.warmup = 1
        c.evals.groups = common.emoji_groups("held_out_concepts_unseen_vendor", ("en",))
    elif mode != "full":
        raise ValueError(f"mode is 'full' or 'quick': got {mode!r}.")
    return c
