"""What imports torch: run as processes of their own, never imported by the page."""

from studio import collector

collector.load()
