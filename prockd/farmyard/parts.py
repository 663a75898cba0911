"""Names and numbers of the parts and key points of an animal."""

PARTS = ("background", "torso", "head", "neck", "ear", "horn", "leg", "foot", "tail")
"""Part names by their number in ``Sample.parts``.

Muzzle, eye, beard and trunk are head; a mane is neck; a hump is torso; antlers and tusks are horn; a foot is the hoof
or paw with its fetlock.
"""

BACKGROUND, TORSO, HEAD, NECK, EAR, HORN, LEG, FOOT, TAIL = range(9)

KEYPOINTS = (
    "withers", "neck_base", "head_top", "eye", "muzzle", "ear_tip", "horn_tip", "tail_base", "tail_tip",
    "front_knee_near", "front_knee_far", "hock_near", "hock_far",
    "front_foot_near", "front_foot_far", "hind_foot_near", "hind_foot_far",
)  # fmt: skip
"""Names of the rows of ``Sample.keypoints``; near is the side turned to the camera."""

KEYPOINT_PARTS = (
    (TORSO, NECK, LEG), (NECK, TORSO), (HEAD, EAR, HORN, NECK), (HEAD,), (HEAD,), (EAR,), (HORN,), (TAIL, TORSO),
    (TAIL,), (LEG, FOOT), (LEG, FOOT), (LEG, FOOT), (LEG, FOOT), (FOOT,), (FOOT,), (FOOT,), (FOOT,),
)  # fmt: skip
"""For each key point, the parts one of which is seen there when it is visible."""

FAR_SHADE = 0.7
"""Brightness of what is on the far side of the animal."""
