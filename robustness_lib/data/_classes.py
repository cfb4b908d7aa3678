"""The names of the classes, in the order of the labels."""

FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GTSRB = (
    "speed 20", "speed 30", "speed 50", "speed 60", "speed 70", "speed 80", "end of speed 80",
    "speed 100", "speed 120", "no overtaking", "no overtaking by trucks", "priority at the next crossing",
    "priority road", "give way", "stop", "no vehicles", "no trucks", "no entry", "danger",
    "bend to the left", "bend to the right", "double bend", "bumpy road", "slippery road",
    "road narrows on the right", "road works", "traffic lights", "pedestrians", "children", "bicycles",
    "ice or snow", "wild animals", "end of all limits", "turn right ahead", "turn left ahead",
    "straight ahead only", "straight ahead or right", "straight ahead or left", "keep right", "keep left",
    "roundabout", "end of no overtaking", "end of no overtaking by trucks",
)
