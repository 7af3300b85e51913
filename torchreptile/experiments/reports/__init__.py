"""What a run has come to, for people: learning curves as a picture, and everything on one HTML page."""

from torchreptile.experiments.reports.multi_run_report import report_beside as report_beside
from torchreptile.experiments.reports.learning_curves import draw_curves as draw_curves
from torchreptile.experiments.reports.episode_image import draw_episode as draw_episode
from torchreptile.experiments.reports.sample_episodes import ShownEpisode as ShownEpisode
from torchreptile.experiments.reports.sample_episodes import sample_episodes as sample_episodes
from torchreptile.experiments.reports.run_report import report as report
