"""What a run has come to, for people: learning curves as a picture, and everything on one HTML page."""

from torchreptile.reports.beside import report_beside as report_beside
from torchreptile.reports.curves import draw_curves as draw_curves
from torchreptile.reports.drawing import draw_episode as draw_episode
from torchreptile.reports.episodes import ShownEpisode as ShownEpisode
from torchreptile.reports.episodes import sample_episodes as sample_episodes
from torchreptile.reports.page import report as report
