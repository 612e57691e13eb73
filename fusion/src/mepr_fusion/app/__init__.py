"""The app: a page that shows one prediction and what it rests on."""
