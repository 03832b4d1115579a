"""Recall against the share of the image that an object covers, on resampled images.

An object is found if COCO matches it at IoU 0.5 with a detection that AP counts.  Its share is its annotated area over
that of the image: unlike COCO's sizes, it does not depend on the resolution of the images.

Letters: R resamples, I images, B bins.
"""

from dataclasses import dataclass

import numpy as np

from backbones.core.matches import TRUE_POSITIVE, Matches
from comparison.diagnosis.variants import above_threshold, add_up, image_weights

EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Shares:
    """Recall by share of the image.

    edges: (B - 1,) limits between bins, each the upper limit of a bin, which includes it.
    objects: (R, B) weight of the objects of each bin; recall: (R, B), NaN where a bin has no objects.
    """

    edges: tuple[float, ...]
    objects: np.ndarray
    recall: np.ndarray


def recall_by_share(matches: Matches, weights: np.ndarray | None = None, edges: tuple[float, ...] = EDGES) -> Shares:
    """Return the recall of objects in bins of their share of the image.

    Args:
        weights: (R, I) of the images; None: every image once (R = 1).
        edges: ascending shares, between 0 and 1.

    Raises:
        InputError: the file does not have the areas of images and objects.
    """
    drawn, bins = image_weights(matches, weights), len(edges) + 1
    share = matches.detail("object_area") / matches.detail("image_area")[matches.object_image]
    hits = (matches.outcome[:, 0, 0] == TRUE_POSITIVE) & above_threshold(matches)
    counted, found = np.flatnonzero(matches.object_counts[:, 0]), matches.detail("partner")[hits]
    group, image = np.searchsorted(edges, share), matches.object_image
    objects, hit = (add_up(group[rows], image[rows], bins, drawn).T for rows in (counted, found))
    recall = np.divide(hit, objects, out=np.full_like(objects, np.nan), where=objects > 0)
    return Shares(tuple(edges), objects, recall)
