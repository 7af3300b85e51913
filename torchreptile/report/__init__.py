"""What a run has come to, for people: learning curves as a picture, and everything on one HTML page."""

from torchreptile.report.beside import report_beside as report_beside
from torchreptile.report.curves import draw_curves as draw_curves
from torchreptile.report.drawing import draw_episode as draw_episode
from torchreptile.report.episodes import ShownEpisode as ShownEpisode
from torchreptile.report.episodes import sample_episodes as sample_episodes
from torchreptile.report.page import report as report
