"""The quickstart: a small SigLIP on emoji, named in 36 languages, on two CPU cores.

Source:  Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023,
         arXiv:2303.15343 (the objective); sizes and augmentations are ours.
Run:     make quickstart
Quick:   python run.py train --config=configs/quickstart.py:quick --workdir=$WORKDIR
Result:  README.md
"""

from ml_collections import ConfigDict

from configs import common


def get_config(mode: str = "full") -> ConfigDict:
    """Sections in the order of the run; `quick` shrinks them at the end."""
    c = ConfigDict()
    c.seed = 0
    c.total_steps = 1500

    c.preprocess = ConfigDict(
        dict(
            image_ops=common.fixed_image_ops(32, antialias=True),
            text=dict(tokenizer="emoji", length_tokens=20),
        )
    )
    c.data = ConfigDict(
        dict(
            source=dict(name="data.emoji:load", split="train"),
            batch_examples=256,
            image_ops=(
                dict(name="data.images:decode"),
                dict(name="data.images:resize", size_px=32, antialias=True),
                dict(
                    name="data.augment:affine",
                    degrees=6,
                    scale=0.2,
                    shift_fraction=0.08,
                    shear_degrees=3,
                ),
                dict(
                    name="data.augment:colour_jitter",
                    brightness=0.1,
                    contrast=0.1,
                    saturation=0.2,
                    hue_degrees=3,
                ),
                dict(name="data.augment:blur", sigma_px=(0.3, 1.2), probability=0.2),
                dict(name="data.augment:cutout", probability=0.2),
                dict(name="data.images:value_range"),
            ),
            texts_per_image=18,  # each in another language
            languages=common.XM3600,
            cache=True,
        )
    )
    c.model = ConfigDict(
        dict(
            name="models.two_towers:make",
            image=dict(
                name="models.vit:tower",
                variant="mu",
                width=128,
                depth=0,
                heads=4,
                image_px=32,
                stem="conv",
                stem_layers=((64, 4, 4), (128, 2, 3)),  # channels, stride, kernel
                positions="none",  # the flat pooling knows them
                pool="flat",
                head_width=128,
            ),
            text=dict(
                name="models.text:bag",
                vocab_size=8_000,
                width=192,
                mlp=384,
                length_tokens=20,
            ),
            bias=-5.0,
        )
    )
    c.terms = ConfigDict(dict(sigmoid=dict(name="objectives.contrastive:sigmoid")))
    c.optimizer = ConfigDict(
        dict(
            method="adam",
            learning_rate=3e-3,
            schedule=dict(name="cosine", warmup="5 %"),
            clip_norm=1.0,
            rules=(dict(path="text/embed", learning_rate=6.0),),
        )
    )

    c.mesh = (("data", -1),)
    c.sharding = "replicated"

    unseen, held_out = "seen_concepts_unseen_vendor", "held_out_concepts_unseen_vendor"
    c.evals = ConfigDict(
        dict(
            unseen_vendor=common.emoji_retrieval(unseen, every_steps=500),
            related_languages=common.emoji_retrieval(unseen, "held_out_related"),
            new_scripts=common.emoji_retrieval(unseen, "held_out_script"),
            seen_vendor=common.emoji_retrieval("train", vendor="noto"),
            held_out_unseen_vendor=common.emoji_retrieval(held_out),
            held_out_seen_vendor=common.emoji_retrieval(
                "held_out_concepts_seen_vendor"
            ),
            groups=common.emoji_groups(held_out),
            translation=dict(
                name="evaluators.text_to_text:TextToText",
                data=dict(name="data.emoji:retrieval", split=unseen),
            ),
            showcase=dict(
                name="evaluators.showcase:Showcase",
                data=dict(name="data.emoji:retrieval", split=unseen),
            ),
        )
    )
    c.log = ConfigDict(dict(every_steps=20))
    c.checkpoint = ConfigDict(dict(every_steps=200, every_minutes=10))

    if mode == "quick":  # seconds
        c.total_steps = 4
        c.data.batch_examples = 16
        c.data.texts_per_image = 2
        c.evals = ConfigDict(dict(groups=c.evals.groups))
    elif mode != "full":
        raise ValueError(f"mode is 'full' or 'quick': got {mode!r}.")
    return c
