"""Names and numbers of the parts and key points of an animal."""

PARTS = ("background", "torso", "head", "neck", "ear", "horn", "leg", "foot", "tail")
"""Part names by their number in ``Sample.parts``.

Muzzle, eye, beard and trunk are head; a mane is neck; a hump is torso; antlers and tusks are horn; a foot is the hoof
or paw with its fetlock.
"""

BACKGROUND, TORSO, HEAD, NECK, EAR, HORN, LEG, FOOT, TAIL = range(9)

KEYPOINT_PARTS = {
    "withers": (TORSO, NECK, LEG), "neck_base": (NECK, TORSO), "head_top": (HEAD, EAR, HORN, NECK), "eye": (HEAD,),
    "muzzle": (HEAD,), "ear_tip": (EAR,), "horn_tip": (HORN,), "tail_base": (TAIL, TORSO), "tail_tip": (TAIL,),
    "front_knee_near": (LEG, FOOT), "front_knee_far": (LEG, FOOT), "hock_near": (LEG, FOOT), "hock_far": (LEG, FOOT),
    "front_foot_near": (FOOT,), "front_foot_far": (FOOT,), "hind_foot_near": (FOOT,), "hind_foot_far": (FOOT,),
}  # fmt: skip
"""For each key point, the parts one of which is seen there when it is visible."""

KEYPOINTS = tuple(KEYPOINT_PARTS)
"""Names of the rows of ``Sample.keypoints``; near is the side turned to the camera."""
