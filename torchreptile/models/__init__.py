"""Networks."""

from torchreptile.models.conv4 import Conv4 as Conv4
from torchreptile.models.conv4 import for_images as for_images
