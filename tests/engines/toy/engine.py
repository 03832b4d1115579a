"""A detector in one file: one box an image, from the mean feature of any network of backbones/models.

It learns class and box of the first object, and finds that box once for every class.
"""

import torch
from torch import Tensor, nn

from backbones.core.checks import ABOVE_0, check_choice, check_range
from backbones.core.config import CfgNode
from backbones.core.engine import Step
from backbones.core.roles import CONTENT, MACHINE, NAMING, NUMBER, SEED, TEST, Block, Roles
from backbones.core.schedule import build_schedule
from backbones.models import build_model
from backbones.models.base import MODELS
from backbones.models.weights import BackboneFile, start_from
from detection.data.loader import InferenceImages, TrainingImages, inference_batches, trainable, training_batches
from detection.data.records import DetectionData
from detection.engines.base import Detections, Detector, Engine
from detection.training.gathering import gather_detections

_C = Block(NUMBER)
_C.SEED, _C.LABEL, _C.PROTOCOL = SEED(0), NAMING(""), NAMING("")
_C.DATASETS = Block(CONTENT)
_C.DATASETS.ROOT, _C.DATASETS.TRAIN, _C.DATASETS.TEST = MACHINE("$SMOOTH2DET_DATA"), ["scenes_train"], ["scenes_val"]
_C.DATALOADER, _C.TEST = MACHINE(CfgNode({"NUM_WORKERS": 0})), TEST(CfgNode({"AP_SCORE_THRESH": 0.0}))
_C.INPUT, _C.MODEL = CfgNode({"SIDE": 64}), CfgNode({"ARCH": "resnet18", "NUM_CLASSES": 12, "DROPOUT": 0.5})
_C.SOLVER = Block()
_C.SOLVER.BASE_LR, _C.SOLVER.IMS_PER_BATCH, _C.SOLVER.MAX_ITER = 0.01, 4, 9
_C.SOLVER.CHECKPOINT_PERIOD, _C.SOLVER.LOG_PERIOD = MACHINE(3), MACHINE(1)


class Toy(Engine):
    roles = Roles(_C)

    def defaults(self) -> CfgNode:
        return _C.clone()

    def check_config(self, cfg: CfgNode) -> None:
        check_choice("MODEL.ARCH", cfg.MODEL.ARCH, MODELS.names())
        check_range("SOLVER.BASE_LR", cfg.SOLVER.BASE_LR, ABOVE_0)

    def build(self, cfg: CfgNode, backbone: BackboneFile | None, device: torch.device) -> Detector:
        body = build_model(cfg.MODEL.ARCH, cfg.MODEL.NUM_CLASSES)
        if backbone:
            start_from(body, backbone)
        model = OneBox(body, cfg.MODEL.NUM_CLASSES, cfg.MODEL.DROPOUT).to(device)
        optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
        schedule = build_schedule("cosine", base_lr=cfg.SOLVER.BASE_LR, max_iter=cfg.SOLVER.MAX_ITER)
        return ToyDetector(cfg=cfg, device=device, model=model, task=model, optimizer=optimizer, schedule=schedule)


ENGINE = Toy()


class OneBox(nn.Module):
    def __init__(self, body: nn.Module, classes: int, dropout: float) -> None:
        super().__init__()
        self.body, self.dropout = body, nn.Dropout(dropout)
        self.classes, self.box = nn.LazyLinear(classes), nn.LazyLinear(4)
        self.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and boxes (B, 4) x0, y0, x1, y1 as shares of the batch's sides, of (B, 3, H, W) uint8."""
        *_, features = self.body.stages(images / 255).values()
        mean = self.dropout(features.mean(dim=(2, 3)))
        return self.classes(mean), self.box(mean).sigmoid()

    def forward(self, batch) -> Step:
        logits, boxes = self.predict(batch.images)
        labels = torch.stack([label[0] for label in batch.labels])
        sides = boxes.new_tensor(batch.images.shape[:1:-1]).repeat(2)
        wanted = torch.stack([box[0] for box in batch.boxes]) / sides
        losses = {"loss_class": nn.functional.cross_entropy(logits, labels), "loss_box": (boxes - wanted).abs().mean()}
        return Step(sum(losses.values()), losses)


class ToyDetector(Detector):
    def batches(self, data: DetectionData, start: int, stop: int):
        options = {"short_sides": (self.cfg.INPUT.SIDE,), "longest": 2 * self.cfg.INPUT.SIDE, "flip": True}
        images = TrainingImages(trainable(data, True), seed=self.cfg.SEED, cache=False, **options)
        order = {"seed": self.cfg.SEED, "start": start, "stop": stop, "group_by_shape": False, "pin_memory": False}
        order |= {"batch_size": self.cfg.SOLVER.IMS_PER_BATCH, "num_workers": self.cfg.DATALOADER.NUM_WORKERS}
        return training_batches(images, **order)

    @torch.inference_mode()
    def detect(self, data: DetectionData) -> Detections:
        self.model.eval()
        images = InferenceImages(data.records, short_side=self.cfg.INPUT.SIDE, longest=2 * self.cfg.INPUT.SIDE)
        found = []
        for batch in inference_batches(images, batch_size=4, num_workers=0, pin_memory=False):
            logits, boxes = self.model.predict(batch.images.to(self.device))
            sides = boxes.new_tensor(batch.images.shape[:1:-1]).repeat(2)
            for n, image_id in enumerate(batch.image_ids):
                x0, y0, x1, y1 = (boxes[n] * sides * batch.originals[n][0] / batch.sizes[n][0]).tolist()
                own = {"image_id": image_id, "bbox": [x0, y0, max(x1 - x0, 1.0), max(y1 - y0, 1.0)]}
                scores = zip(data.categories, logits[n].softmax(dim=0).tolist(), strict=True)
                found.append((image_id, [own | {"category_id": c["id"], "score": score} for c, score in scores]))
        return gather_detections(found, data.records)
