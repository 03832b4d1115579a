"""Reference implementation of YOLO's assignment and loss in plain Python, box by box."""

import math

STRIDES = (8, 16, 32)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(logit, target):
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def overlap(a, b):
    """Return (IoU, GIoU) of two boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union, width * height / union - (hull - union) / hull


def assign_image(boxes, anchors, sizes, threshold=0.3):
    """Return {(scale, anchor, row, column): index of the box} of one image; boxes are lists of 4 numbers."""
    claims = {}
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        fits = {}
        for scale, (stride, own) in enumerate(zip(STRIDES, anchors, strict=True)):
            for a, (w, h) in enumerate(own):
                w, h = w * stride, h * stride
                fits[scale, a] = overlap((0, 0, w, h), ((w - x1 + x0) / 2, (h - y1 + y0) / 2,
                                                        (w + x1 - x0) / 2, (h + y1 - y0) / 2))[0]  # fmt: skip
        chosen = [place for place, iou in fits.items() if iou > threshold]
        if not chosen:
            chosen = [max(fits, key=lambda place: (fits[place], [-n for n in place]))]
        for scale, a in chosen:
            height, width = sizes[scale]
            column = min(max(math.floor((x0 + x1) / 2 / STRIDES[scale]), 0), width - 1)
            row = min(max(math.floor((y0 + y1) / 2 / STRIDES[scale]), 0), height - 1)
            claims.setdefault((scale, a, row, column), []).append((fits[scale, a], -number))
    return {place: -max(found)[1] for place, found in claims.items()}


def decode(values, anchor, row, column, stride):
    x, y = (sigmoid(values[0]) + column) * stride, (sigmoid(values[1]) + row) * stride
    w, h = (math.exp(value) * side * stride for value, side in zip(values[2:4], anchor, strict=True))
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def loss(maps, boxes, labels, weights, class_targets, anchors, gamma=2.0):
    """Return the losses [box, objectness, class] of a padded batch given as tensors."""
    sizes = [tuple(raw.shape[2:4]) for raw in maps]
    pixels = sizes[0][0] * sizes[0][1] * STRIDES[0] ** 2
    total = [0.0, 0.0, 0.0]
    for image in range(len(boxes)):
        real = [n for n, label in enumerate(labels[image].tolist()) if label >= 0]
        truth = [boxes[image, n].tolist() for n in real]
        assigned = assign_image(truth, anchors, sizes)
        for scale, raw in enumerate(maps):
            for a, anchor in enumerate(anchors[scale]):
                for row in range(sizes[scale][0]):
                    for column in range(sizes[scale][1]):
                        values = raw[image, a, row, column].tolist()
                        box = decode(values, anchor, row, column, STRIDES[scale])
                        p = sigmoid(values[4])
                        number = assigned.get((scale, a, row, column))
                        if number is None:
                            if max([0.0, *(overlap(box, other)[0] for other in truth)]) < 0.5:
                                total[1] += p**gamma * cross_entropy(values[4], 0)
                            continue
                        own, weight = truth[number], weights[image, real[number]].item()
                        share = (own[2] - own[0]) * (own[3] - own[1]) / pixels
                        total[0] += weight * (2 - share) * (1 - overlap(box, own)[1])
                        total[1] += weight * (1 - p) ** gamma * cross_entropy(values[4], 1)
                        target = class_targets[image, real[number]].tolist()
                        total[2] += weight * sum(map(cross_entropy, values[5:], target))
    return [part / len(boxes) for part in total]
