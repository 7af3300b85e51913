"""Reports of runs and experiments: HTML pages, Markdown and CSV tables, and figures."""

from torchreptile.experiments.reports.multi_run_report import report_runs as report_runs
from torchreptile.experiments.reports.learning_curves import draw_curves as draw_curves
from torchreptile.experiments.reports.episode_image import draw_episode as draw_episode
from torchreptile.experiments.reports.sample_episodes import ShownEpisode as ShownEpisode
from torchreptile.experiments.reports.sample_episodes import sample_episodes as sample_episodes
from torchreptile.experiments.reports.run_report import report as report
