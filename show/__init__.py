"""What people look at: pages, terminal, plots, diagrams, ratings. No torch."""
