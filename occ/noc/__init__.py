"""The NOC page: what the server does right now, at ``/noc`` of the listener of the metrics."""

from occ.noc.alerts import Alert, Alerts
from occ.noc.figures import Figures
from occ.noc.page import Noc, Page

__all__ = ["Alert", "Alerts", "Figures", "Noc", "Page"]
