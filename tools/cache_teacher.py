"""Compute a teacher's logits for a training split once, for TEACHER.CACHE.

python tools/cache_teacher.py runs/ce --output-dir runs/ce/teacher
python tools/pretrain.py --config-file ... --output-dir runs/ils METHOD.NAME ILS TEACHER.CACHE runs/ce/teacher

Images are preprocessed as in evaluation, without augmentation; N samples of K classes take 4 N K bytes.  The data are
those of the teacher's config; override keys with KEY VALUE if the student's differ (DATA.VERSION, DATA.NOISE_RATE).
With held-out images, teacher and student must be trained on the same images.
"""

from backbones.core.distributed import setup_distributed
from backbones.core.entry import run_tool
from backbones.core.run_arguments import RunArguments, takes_run
from backbones.core.run_log import get_logger
from backbones.core.warning_counter import WarningCounter


@takes_run(__doc__, "teacher", "backbone")
def main(args: RunArguments) -> int:
    import torch  # slow: imported after the arguments are checked

    from backbones.measuring.run import build_samples, load_run
    from backbones.pretraining.building import build_evaluation_batches, check_teacher_data, read_split
    from backbones.pretraining.teacher import OnlineTeacher, write_cache

    cfg, backbone = load_run(args.run, args.overrides)
    warnings = WarningCounter()
    samples = read_split(cfg, cfg.DATA.TRAIN_SPLIT, warnings, training=True)
    val = build_samples(cfg, cfg.DATA.VAL_SPLIT, backbone, warnings)
    warnings.log(get_logger())
    teacher = OnlineTeacher(backbone, samples.classes, setup_distributed(), torch.float32)
    check_teacher_data(cfg, teacher, samples)
    batches = (build_evaluation_batches(cfg, split) for split in (samples, val))
    description = write_cache(args.output_dir, teacher, samples, *batches, val_names=val.paths, val_split=val.split)
    print(
        f"{len(samples):,} x {len(samples.classes):,} logits of {description['backbone']} for data "
        f"{description['fingerprint']}, temperature {description['temperature']:.3f}: {args.output_dir}"
    )
    return 0


if __name__ == "__main__":
    run_tool(main)
