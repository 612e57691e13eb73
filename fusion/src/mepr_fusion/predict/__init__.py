"""From a media file to emotions and traits."""
